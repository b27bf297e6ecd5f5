// SPDX-License-Identifier: GPL-2.0-or-later
// CompletionQueue: ring operations that have ended and whose `done` has not run yet.
//
// Not linked through the operations: a multishot operation may have several results waiting. Grows
// to the most that were ever waiting at once, then allocates no more.
// Thread: one. Ownership: borrows the operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "loop/event_loop.h"

namespace skiff::loop {

class CompletionQueue {
 public:
  struct Entry {
    RingOperation* operation = nullptr;
    int32_t result = 0;
    uint32_t cqe_flags = 0;
  };

  bool empty() const { return first_ == end_; }

  void push(const Entry& entry) {
    if (end_ - first_ == entries_.size()) grow();
    entries_[end_++ & (entries_.size() - 1)] = entry;
  }

  Entry pop() { return entries_[first_++ & (entries_.size() - 1)]; }

 private:
  void grow() {
    std::vector<Entry> larger(entries_.empty() ? 64 : entries_.size() * 2);
    size_t count = 0;
    while (!empty()) larger[count++] = pop();
    entries_ = std::move(larger);
    first_ = 0;
    end_ = count;
  }

  std::vector<Entry> entries_;  // A power of two of them, or none yet.
  size_t first_ = 0;            // Both count upwards without end.
  size_t end_ = 0;
};

}  // namespace skiff::loop
