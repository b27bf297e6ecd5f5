// SPDX-License-Identifier: GPL-2.0-or-later
// Medians, and how sure one may be of them and of the ratio of two.
//
// Intervals are of 95 %, by drawing the values anew (percentile bootstrap) with a fixed seed: the
// same values give the same interval. Thread: any; pure functions.
#pragma once

#include <span>

namespace skiff::vmm {

double median_of(std::span<const double> values);  // 0 of nothing.

struct Interval {
  double middle = 0;
  double low = 0;
  double high = 0;
};

// All 0 of nothing; a single value is its own interval.
Interval median_interval(std::span<const double> values);

// The ratio of the medians of `one` and `other`, which were measured in the same rounds: the rounds
// are drawn, both values of each together.
Interval ratio_interval(std::span<const double> one, std::span<const double> other);
// The same for values that have nothing to do with each other: of two runs, of any number each.
Interval unpaired_ratio_interval(std::span<const double> one, std::span<const double> other);

// How far from 1 a ratio may be, as a part of it: 0.1 for 0.95 to 1.1. 0 when nothing is known.
double spread_of_ratio(const Interval& ratio);

}  // namespace skiff::vmm
