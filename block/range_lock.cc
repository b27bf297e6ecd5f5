// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/range_lock.h"

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"

namespace skiff::block {
namespace {

bool overlap(const RangeLocks::Range& a, const RangeLocks::Range& b) {
  return a.begin_bytes < b.end_bytes && b.begin_bytes < a.end_bytes;
}

}  // namespace

RangeLocks::~RangeLocks() {
  const loop::MutexLock lock(mutex_);
  SKIFF_CHECK(first_ == nullptr);
}

bool RangeLocks::blocked(const Range& range) const {
  for (const Range* other = first_; other != nullptr && other != &range; other = other->later)
    if (overlap(*other, range)) return true;
  return false;
}

bool RangeLocks::acquire(Range& range) {
  const loop::MutexLock lock(mutex_);
  Range** end = &first_;
  while (*end != nullptr) end = &(*end)->later;
  range.later = nullptr;
  *end = &range;
  range.waiting = blocked(range);
  return !range.waiting;
}

void RangeLocks::release(Range& range) {
  const loop::MutexLock lock(mutex_);
  Range** at = &first_;
  while (*at != &range) at = &(*at)->later;
  *at = range.later;
  for (Range* other = *at; other != nullptr; other = other->later) {
    if (!other->waiting || blocked(*other)) continue;
    other->waiting = false;
    other->run = [](loop::Message& message) {
      auto& granted = static_cast<Range&>(message);
      granted.granted(granted);
    };
    // Posting takes no lock of ours and runs nothing here.
    other->home->post(*other);
  }
}

}  // namespace skiff::block
