// SPDX-License-Identifier: GPL-2.0-or-later
// Medians, and how sure one may be of the ratio of two of them.
//
// Thread: any; pure functions.
#pragma once

#include <span>

namespace skiff::perf {

double median_of(std::span<const double> values);  // 0 of nothing.

struct Interval {
  double middle = 0;
  double low = 0;
  double high = 0;
};

// The ratio of the medians of `one` and `other`, which were measured in the same rounds, with the
// 95 % interval that resampling the rounds gives (percentile bootstrap, always the same numbers).
Interval ratio_interval(std::span<const double> one, std::span<const double> other);

}  // namespace skiff::perf
