// SPDX-License-Identifier: GPL-2.0-or-later
// Clock: where time comes from, so that tests can make it.
//
// Thread: any. Times are nanoseconds of CLOCK_MONOTONIC unless a ManualClock says otherwise.
#pragma once

#include <atomic>
#include <cstdint>

namespace skiff::loop {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t now_ns() const = 0;
};

class MonotonicClock final : public Clock {
 public:
  int64_t now_ns() const override;
};

// Advances only when told.
class ManualClock final : public Clock {
 public:
  int64_t now_ns() const override { return now_ns_.load(std::memory_order_relaxed); }
  void advance_ns(int64_t delta_ns) { now_ns_.fetch_add(delta_ns, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> now_ns_{1'000'000'000};
};

}  // namespace skiff::loop
