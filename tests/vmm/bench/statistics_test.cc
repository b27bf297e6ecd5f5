// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/statistics.h"

#include <gtest/gtest.h>

#include <vector>

namespace skiff::vmm {
namespace {

using Values = std::vector<double>;

TEST(Statistics, TheMedianIsTheMiddleAndOfNothingZero) {
  EXPECT_EQ(median_of(Values{}), 0);
  EXPECT_EQ(median_of(Values{3, 1, 100}), 3);
  EXPECT_EQ(median_of(Values{4, 1, 2, 100}), 3);
}

TEST(Statistics, AnIntervalHoldsTheMedianAndStaysWithinTheValues) {
  const Values values = {10, 11, 12, 13, 50};
  const Interval interval = median_interval(values);
  EXPECT_EQ(interval.middle, 12);
  EXPECT_GE(interval.low, 10);
  EXPECT_LE(interval.low, 12);
  EXPECT_GE(interval.high, 12);
  EXPECT_LE(interval.high, 50);
  EXPECT_EQ(median_interval(values).high, interval.high);  // The same each time.
}

TEST(Statistics, ASingleValueIsItsOwnInterval) {
  const Interval interval = median_interval(Values{7});
  EXPECT_EQ(interval.low, 7);
  EXPECT_EQ(interval.high, 7);
}

TEST(Statistics, PairedRatiosForgiveRoundsThatWereBadForBoth) {
  // Twice as fast in each round, whatever the weather.
  const Values one = {20, 200, 40, 60, 2};
  const Values other = {10, 100, 20, 30, 1};
  const Interval paired = ratio_interval(one, other);
  EXPECT_DOUBLE_EQ(paired.middle, 2);
  EXPECT_DOUBLE_EQ(paired.low, 2);
  EXPECT_DOUBLE_EQ(paired.high, 2);
  const Interval unpaired = unpaired_ratio_interval(one, other);
  EXPECT_DOUBLE_EQ(unpaired.middle, 2);
  EXPECT_LT(unpaired.low, 1);
  EXPECT_GT(unpaired.high, 3);
}

TEST(Statistics, ARatioOfNothingIsNothing) {
  EXPECT_EQ(ratio_interval(Values{}, Values{1}).middle, 0);
  EXPECT_EQ(unpaired_ratio_interval(Values{1}, Values{}).middle, 0);
  EXPECT_EQ(ratio_interval(Values{1}, Values{0}).middle, 0);
}

TEST(Statistics, TheSpreadIsTheFurtherEndOnEitherSide) {
  EXPECT_DOUBLE_EQ(spread_of_ratio({1, 0.8, 1.1}), 0.25);
  EXPECT_DOUBLE_EQ(spread_of_ratio({1, 0.95, 1.5}), 0.5);
  EXPECT_DOUBLE_EQ(spread_of_ratio({1.2, 1.1, 1.3}), 1.3 - 1);
  EXPECT_DOUBLE_EQ(spread_of_ratio({}), 0);
}

}  // namespace
}  // namespace skiff::vmm
