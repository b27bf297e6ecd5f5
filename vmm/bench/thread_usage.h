// SPDX-License-Identifier: GPL-2.0-or-later
// What each thread of a process has cost so far: its CPU time and how often it has slept.
//
// From /proc, so that it works for any process, and sees the kernel's own threads in it (io_uring's
// workers) too. Thread: any. Ownership: value types.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace skiff::vmm {

struct ThreadUsage {
  pid_t tid = 0;
  std::string name;
  int64_t cpu_ns = 0;
  int64_t guest_ns = 0;  // Of cpu_ns, inside a guest; from the kernel's clock ticks.
  uint64_t context_switches = 0;
  uint64_t sleeps = 0;  // Of those, the ones that it asked for: each ends in a wake.
};

// Threads that end meanwhile are left out. Empty: no such process.
std::vector<ThreadUsage> threads_of(pid_t pid);
// What has been added since `begin`, for the threads of `end`, the busiest first.
std::vector<ThreadUsage> usage_since(const std::vector<ThreadUsage>& begin,
                                     std::vector<ThreadUsage> end);

}  // namespace skiff::vmm
