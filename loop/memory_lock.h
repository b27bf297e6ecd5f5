// SPDX-License-Identifier: GPL-2.0-or-later
// MemoryLock: keeps memory in RAM, so that a real-time guest never waits for a page.
//
// Thread: any. Ownership: unlocks when it goes; movable. Locks do not nest: the first to go
// unlocks.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "loop/result.h"

namespace skiff::loop {

class MemoryLock {
 public:
  // Brings `memory` in and keeps it (mlock(2)): it takes as long as filling it with zeroes.
  // Fails with kExhausted, naming the limit and what to do, when RLIMIT_MEMLOCK is too low.
  static Result<MemoryLock> lock_range(std::span<std::byte> memory);
  // Everything the process has and will have, each page as it is first touched
  // (MCL_ONFAULT: stacks and reserves that nobody uses stay unused).
  static Result<MemoryLock> lock_process();

  MemoryLock(MemoryLock&& other) noexcept
      : memory_(std::exchange(other.memory_, {})),
        whole_process_(std::exchange(other.whole_process_, false)) {}
  MemoryLock& operator=(MemoryLock&& other) noexcept;
  MemoryLock(const MemoryLock&) = delete;
  MemoryLock& operator=(const MemoryLock&) = delete;
  ~MemoryLock() { unlock(); }

 private:
  MemoryLock(std::span<std::byte> memory, bool whole_process)
      : memory_(memory), whole_process_(whole_process) {}
  void unlock();

  std::span<std::byte> memory_;
  bool whole_process_;
};

}  // namespace skiff::loop
