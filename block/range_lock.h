// SPDX-License-Identifier: GPL-2.0-or-later
// RangeLocks: at most one writer at a time in a range of an image.
//
// Needed where a write smaller than the device's block is a read-modify-write: two of them in one
// block, on whatever channels, would lose the first one's bytes. First come, first served among
// those that overlap. Thread: any. Ownership: borrows the ranges until they are released.
#pragma once

#include <cstdint>

#include "loop/event_loop.h"
#include "loop/mutex.h"

namespace skiff::block {

class RangeLocks {
 public:
  // One user's range, kept in place from acquire() to release().
  struct Range : loop::Message {
    uint64_t begin_bytes = 0;
    uint64_t end_bytes = 0;
    loop::EventLoop* home = nullptr;
    void (*granted)(Range& range) = nullptr;  // On `home`.
    void* owner = nullptr;

    bool waiting = false;  // These two are the lock's.
    Range* later = nullptr;
  };

  RangeLocks() = default;
  RangeLocks(const RangeLocks&) = delete;
  RangeLocks& operator=(const RangeLocks&) = delete;
  ~RangeLocks();

  // True when the range is the caller's at once; otherwise `granted` runs later.
  bool acquire(Range& range);
  // Only of a range that was granted.
  void release(Range& range);

 private:
  bool blocked(const Range& range) const SKIFF_REQUIRES(mutex_);

  loop::Mutex mutex_;
  Range* first_ SKIFF_GUARDED_BY(mutex_) = nullptr;  // In order of arrival, held and waiting.
};

}  // namespace skiff::block
