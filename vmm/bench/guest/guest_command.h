// SPDX-License-Identifier: GPL-2.0-or-later
// The command lines of a payload guest: the guest's own, and those of Skiff and QEMU around it.
//
// Thread: any; pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loop/result.h"
#include "vmm/bench/guest/guest_options.h"

namespace skiff::vmm {

struct GuestRunPlan {
  std::string payload;  // Path of the guest's ELF file.
  std::string skiff;    // Path of this program.
  uint64_t tsc_khz = 0;
  int64_t duration_ns = 0;  // Of this run, without its warm-up.
  uint64_t seed = 0;
};

// Threads start, engines learn: a fifth of the time, but no longer than 200 ms.
int64_t guest_warm_up_ns(int64_t duration_ns);
// Of the guest, in MiB: the payload, and buffers for all that is ever in flight. kInvalidArgument
// when that is more than 2 GiB.
loop::Result<uint64_t> guest_memory_mib(const GuestBenchOptions& options);
// The words that the payload reads.
std::string payload_command_line(const GuestBenchOptions& options, const GuestRunPlan& plan,
                                 uint64_t memory_mib);
// The whole command of one run. Errors as guest_memory_mib(), and NullDevice::parse()'s.
loop::Result<std::vector<std::string>> guest_command(const GuestBenchOptions& options,
                                                     const GuestContestant& contestant,
                                                     const GuestRunPlan& plan);

}  // namespace skiff::vmm
