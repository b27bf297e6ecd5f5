// SPDX-License-Identifier: GPL-2.0-or-later
// Requests as blocking system calls: what the engines with threads do, and what is left for the
// others when the kernel will not do it for them.
//
// Thread: any that may block. Ownership: borrows target and request.
#pragma once

#include <cstdint>

#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"

namespace skiff::block {

// One step on a file or block device as one system call (preadv2, pwritev2, fdatasync, fallocate):
// bytes or -errno. `rwf_flags` come on top of the step's own; for a trial with RWF_NOWAIT.
int32_t perform_step(int fd, const IoStep& step, int rwf_flags = 0);

// How a NullDevice's latency passes. Sleeping ends some microseconds late and frees the CPU; waits
// under 50 us are spun where whoever waits is the only one that could use the CPU anyway.
enum class NullWait : uint8_t { kSpinIfShort, kSleep };

// All that is left of a begun request: its final result. On a NullDevice only time passes.
int32_t run_blocking(const IoTarget& target, IoRequest& request, NullWait wait);

}  // namespace skiff::block
