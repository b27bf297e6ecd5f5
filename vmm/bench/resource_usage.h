// SPDX-License-Identifier: GPL-2.0-or-later
// What a measurement has cost: CPU time, context switches, system calls.
//
// Thread: the main thread, which coordinates and is not counted in ResourceUsage; SyscallCounter is
// created there before the threads that it is to count. Ownership: SyscallCounter owns its
// descriptor.
#pragma once

#include <cstdint>

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

// Counts each entry into the kernel by system call, of this thread and of those created after it:
// the tracepoint raw_syscalls:sys_enter. While one exists every system call of the machine takes
// longer, so what is counted is not timed.
class SyscallCounter {
 public:
  // Fails with kPermission or kUnsupported where the kernel lets us not.
  static loop::Result<SyscallCounter> create();

  void enable();
  void disable();
  uint64_t count() const;

 private:
  explicit SyscallCounter(loop::UniqueFd fd) : fd_(std::move(fd)) {}
  loop::UniqueFd fd_;
};

}  // namespace skiff::vmm
