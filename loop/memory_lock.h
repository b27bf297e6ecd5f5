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

  MemoryLock(MemoryLock&& other) noexcept : memory_(std::exchange(other.memory_, {})) {}
  MemoryLock& operator=(MemoryLock&& other) noexcept;
  MemoryLock(const MemoryLock&) = delete;
  MemoryLock& operator=(const MemoryLock&) = delete;
  ~MemoryLock() { unlock(); }

 private:
  explicit MemoryLock(std::span<std::byte> memory) : memory_(memory) {}
  void unlock();

  std::span<std::byte> memory_;
};

}  // namespace skiff::loop
