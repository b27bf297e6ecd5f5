// SPDX-License-Identifier: GPL-2.0-or-later
// TimerProbe: how late whoever asks gets to what was due at a fixed rate, as a task with a deadline
// would. Each expiry counts, those too that passed while nobody looked.
//
// Freestanding. Thread: one at a time. Ownership: a value type.
#pragma once

#include <cstdint>

#include "vmm/bench/driver/driver_histogram.h"
#include "vmm/bench/driver/tick_scale.h"

namespace skiff::vmm {

class TimerProbe {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;

  // `rate` a second, not 0. What is due before `measure_from` is not counted. In ticks.
  void start(uint64_t begin, uint64_t measure_from, uint64_t rate, const TickScale& scale) {
    scale_ = scale;
    period_ = scale.ticks_per_second() / rate;
    due_ = begin + period_;
    measure_from_ = measure_from;
  }
  void look(uint64_t now) {
    for (; due_ <= now; due_ += period_)
      if (due_ >= measure_from_) lateness_.record(scale_.to_ns(now - due_));
  }
  uint64_t due() const { return due_; }  // kNever before start().
  const DriverHistogram& lateness() const { return lateness_; }

 private:
  TickScale scale_{1};
  uint64_t period_ = 0;
  uint64_t due_ = kNever;
  uint64_t measure_from_ = 0;
  DriverHistogram lateness_;
};

}  // namespace skiff::vmm
