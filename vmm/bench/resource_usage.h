// SPDX-License-Identifier: GPL-2.0-or-later
// What a measurement has cost: CPU time, context switches, system calls.
//
// Thread: the main thread, which coordinates and is not counted in ResourceUsage; SyscallCounter is
// created there before the threads that it is to count. Ownership: SyscallCounter owns its
// descriptor.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {

// Of the process so far, all of its threads (the kernel's io_uring workers too) but the caller's.
struct ResourceUsage {
  int64_t cpu_ns = 0;
  uint64_t context_switches = 0;

  static ResourceUsage now();
  ResourceUsage since(const ResourceUsage& begin) const {
    return {cpu_ns - begin.cpu_ns, context_switches - begin.context_switches};
  }
};

// Counts how often this thread, and threads and processes created after it, come by a tracepoint of
// the kernel; by default raw_syscalls:sys_enter, each entry by system call. While one exists every
// system call of the machine takes longer, so what is counted is not timed.
class SyscallCounter {
 public:
  static constexpr const char* kSyscalls = "raw_syscalls/sys_enter";
  // Fails with kPermission or kUnsupported where the kernel lets us not, or has no such tracepoint.
  static loop::Result<SyscallCounter> create(const std::string& tracepoint = kSyscalls);

  void enable();
  void disable();
  uint64_t count() const;

 private:
  explicit SyscallCounter(loop::UniqueFd fd) : fd_(std::move(fd)) {}
  loop::UniqueFd fd_;
};

}  // namespace skiff::vmm
