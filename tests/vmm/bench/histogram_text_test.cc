// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/histogram_text.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "loop/latency_histogram.h"

namespace skiff::vmm {
namespace {

TEST(HistogramText, ADistributionComesBackAsItWas) {
  loop::LatencyHistogram latency;
  for (int64_t time_ns = 1; time_ns < 5'000'000; time_ns = time_ns * 3 / 2 + 1)
    latency.record_many(time_ns, static_cast<uint64_t>(time_ns % 7 + 1));
  const auto back = parse_histogram_text(histogram_text(latency));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->count(), latency.count());
  for (const double percent : {0.0, 10.0, 50.0, 99.0, 99.9, 100.0})
    EXPECT_EQ(back->percentile_ns(percent), latency.percentile_ns(percent)) << percent;
  EXPECT_EQ(back->max_ns(), latency.max_ns());
  EXPECT_NEAR(back->mean_ns(), latency.mean_ns(), latency.mean_ns() / 32);
}

TEST(HistogramText, NothingIsAnEmptyText) {
  EXPECT_EQ(histogram_text({}), "");
  ASSERT_TRUE(parse_histogram_text(""));
  EXPECT_EQ(parse_histogram_text("")->count(), 0u);
}

TEST(HistogramText, WhatIsNoDistributionIsRefused) {
  for (const char* text : {"5", "5:", ":5", "a:5", "5:0", "-1:5", "5:5  6:6", "5:5,6:6",
                           "99999999999999999999:1", "5:9999999999999999999"})
    EXPECT_FALSE(parse_histogram_text(text)) << text;
}

}  // namespace
}  // namespace skiff::vmm
