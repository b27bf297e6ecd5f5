// SPDX-License-Identifier: GPL-2.0-or-later
// One run of a payload guest, as a process of its own: what it printed, how it ended, and what its
// threads cost while the guest worked.
//
// Thread: one that may block. Ownership: values. The process dies with ours.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "loop/result.h"
#include "vmm/bench/thread_usage.h"

namespace skiff::vmm {

struct GuestOutcome {
  std::string document;              // What the guest printed, without its marks.
  int64_t boot_ns = 0;               // Until its mark "begin".
  std::vector<ThreadUsage> threads;  // Between its marks "begin" and "end".
};
// Called when the guest's marks arrive.
struct GuestHooks {
  std::function<void()> on_begin;
  std::function<void()> on_end;
};

// kIo when the process cannot be started, ends otherwise than the guest wanted, or goes on for
// `patience_ns`; with the last that it said on stderr.
loop::Result<GuestOutcome> run_guest_process(const std::vector<std::string>& command,
                                             int64_t patience_ns, const GuestHooks& hooks);

}  // namespace skiff::vmm
