// SPDX-License-Identifier: GPL-2.0-or-later
// TimingBudget: which batches of requests have their times taken, so that taking them costs less
// than 2 % of a CPU whatever the rate.
//
// A batch costs a reading of the clock for each request and five more. While batches come slowly,
// each is timed. When they come so fast that this would cost too much, some go without, and the
// next one that is timed stands for them as well: it counts that many times. Thread: one at a time.
// Ownership: a value.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace skiff::devices {

class TimingBudget {
 public:
  // Is the next batch to be timed? Asked once for each.
  bool wants_next() {
    if (skip_ == 0) return true;
    --skip_;
    ++skipped_;
    return false;
  }
  // It is, it begins now and has so many requests. For how many batches it stands.
  uint32_t begin(int64_t now_ns, size_t requests) {
    const uint32_t weight = skipped_ + 1;
    if (begun_ns_ != kNever) {
      const int64_t period_ns = std::max<int64_t>((now_ns - begun_ns_) / weight, 1);
      const int64_t cost_ns = (static_cast<int64_t>(requests) + kPerBatch) * kClockNs;
      skip_ = static_cast<uint32_t>(std::min<int64_t>(kFactor * cost_ns / period_ns, kSkipMax));
    }
    begun_ns_ = now_ns;
    skipped_ = 0;
    return weight;
  }

 private:
  static constexpr int64_t kNever = INT64_MIN;
  static constexpr int64_t kClockNs = 25;  // One reading, measured.
  static constexpr int64_t kPerBatch = 5;
  static constexpr int64_t kFactor = 64;  // 1.6 %.
  static constexpr int64_t kSkipMax = 1023;

  uint32_t skip_ = 0;
  uint32_t skipped_ = 0;
  int64_t begun_ns_ = kNever;
};

}  // namespace skiff::devices
