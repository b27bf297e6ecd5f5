// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace skiff::loop {
namespace {

TEST(LatencyHistogramTest, EmptyGivesZeroes) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0U);
  EXPECT_EQ(histogram.percentile_ns(50), 0);
  EXPECT_EQ(histogram.mean_ns(), 0);
  EXPECT_EQ(histogram.max_ns(), 0);
}

TEST(LatencyHistogramTest, PercentilesAreAtMostOneThirtySecondTooHigh) {
  std::mt19937_64 random(7);
  std::vector<int64_t> values;
  LatencyHistogram histogram;
  for (int i = 0; i < 50'000; ++i) {
    // Every order of magnitude as often as any other.
    const auto value = static_cast<int64_t>(random() >> (22 + random() % 42));
    values.push_back(value);
    histogram.record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.0, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const auto rank = std::max<size_t>(
        1, static_cast<size_t>(std::ceil(percent / 100 * static_cast<double>(values.size()))));
    const int64_t exact = values[rank - 1];
    const int64_t got = histogram.percentile_ns(percent);
    EXPECT_GE(got, exact) << percent;
    EXPECT_LE(got, exact + exact / 32) << percent;
  }
  EXPECT_EQ(histogram.max_ns(), values.back());
}

TEST(LatencyHistogramTest, EdgesOfEveryBucketStayWithinTheError) {
  for (uint32_t bit = 0; bit < 42; ++bit) {
    for (const int64_t offset : {-1, 0, 1}) {
      const int64_t value = (int64_t{1} << bit) + offset;
      LatencyHistogram histogram;
      histogram.record(value);
      histogram.record(int64_t{1} << 50);  // So that the maximum does not hide the bucket's edge.
      EXPECT_GE(histogram.percentile_ns(50), value);
      EXPECT_LE(histogram.percentile_ns(50), value + value / 32);
    }
  }
}

TEST(LatencyHistogramTest, OutOfRangeCountsAtTheEnds) {
  LatencyHistogram histogram;
  histogram.record(-5);
  histogram.record(INT64_MAX);
  EXPECT_EQ(histogram.count(), 2U);
  EXPECT_EQ(histogram.percentile_ns(50), 0);
  EXPECT_EQ(histogram.max_ns(), INT64_MAX);
}

TEST(LatencyHistogramTest, MergingIsAsIfOneHadSeenAll) {
  LatencyHistogram first;
  LatencyHistogram second;
  LatencyHistogram both;
  for (int64_t i = 0; i < 1000; ++i) {
    (i % 3 == 0 ? first : second).record(i * i);
    both.record(i * i);
  }
  first.merge(second);
  EXPECT_EQ(first.count(), both.count());
  EXPECT_EQ(first.max_ns(), both.max_ns());
  EXPECT_DOUBLE_EQ(first.mean_ns(), both.mean_ns());
  for (const double percent : {10.0, 50.0, 99.0})
    EXPECT_EQ(first.percentile_ns(percent), both.percentile_ns(percent));
}

}  // namespace
}  // namespace skiff::loop
