// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/cell_sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

CellSample sample_of(double iops, double p50_ns) {
  CellSample sample;
  sample.metrics = {{"iops", iops}, {"lat_ns.p50", p50_ns}, {"cpu_ns_per_io", p50_ns / 10}};
  sample.latency.emplace();
  for (int i = 0; i < static_cast<int>(iops); ++i)
    sample.latency->record(static_cast<int64_t>(p50_ns));
  return sample;
}

TEST(CellSample, NumbersAreFoundByTheirPath) {
  const auto sample = parse_bench_output(
      R"([{"engine": "sync", "iops": 1000, "lat_ns": {"p50": 30.5, "p99": 90},
           "histogram_ns": "31:9 95:1", "rounds": [{"iops": 5}], "direct": true}])");
  ASSERT_TRUE(sample) << sample.error().message();
  EXPECT_EQ(sample->metrics.at("iops"), 1000);
  EXPECT_EQ(sample->metrics.at("lat_ns.p50"), 30.5);
  EXPECT_EQ(sample->metrics.size(), 3u);
  ASSERT_TRUE(sample->latency);
  EXPECT_EQ(sample->latency->count(), 10u);
}

TEST(CellSample, ResultsMayStandInAnObject) {
  EXPECT_TRUE(parse_bench_output(R"({"bench": "queues", "results": [{"iops": 1}]})"));
  const auto guest =
      parse_bench_output(R"({"depth": 1, "guests": [{"iops": 1, "cpu_ns_per_request": 5}]})");
  ASSERT_TRUE(guest) << guest.error().message();
  EXPECT_EQ(guest->metrics.at("cpu_ns_per_io"), 5);
}

TEST(CellSample, WhatIsNoResultIsRefusedWithTheReason) {
  const auto error = [](const std::string& json) {
    const auto sample = parse_bench_output(json);
    return sample ? std::string("no error") : sample.error().message();
  };
  EXPECT_THAT(error(""), HasSubstr("not JSON"));
  EXPECT_THAT(error("{}"), HasSubstr("results"));
  EXPECT_THAT(error("[]"), HasSubstr("0 results"));
  EXPECT_THAT(error(R"([{"iops": 1}, {"iops": 2}])"), HasSubstr("2 results"));
  EXPECT_THAT(error(R"([{"engine": "sync"}])"), HasSubstr("iops"));
  EXPECT_THAT(error(R"([{"iops": "many"}])"), HasSubstr("iops"));
  EXPECT_THAT(error(R"([{"iops": 1, "error": "It crashed"}])"), HasSubstr("It crashed"));
  EXPECT_THAT(error("[5]"), HasSubstr("iops"));
  EXPECT_THAT(error(R"([{"iops": 1, "histogram_ns": "x"}])"), HasSubstr("histogram_ns"));
}

TEST(CellSample, CopiesAddUpAndTheirFairnessIsSaid) {
  const std::vector<CellSample> samples = {sample_of(300, 1000), sample_of(100, 3000)};
  const CellSample sum = sum_of_copies(samples);
  EXPECT_EQ(sum.metrics.at("iops"), 400);
  // Of all requests: three quarters took 1000 ns.
  EXPECT_NEAR(sum.metrics.at("lat_ns.p50"), 1000, 32);
  EXPECT_NEAR(sum.metrics.at("cpu_ns_per_io"), 0.75 * 100 + 0.25 * 300, 1e-6);
  EXPECT_NEAR(sum.metrics.at("fairness.min_share"), 0.5, 1e-9);
  EXPECT_NEAR(sum.metrics.at("fairness.jain"), 400.0 * 400 / (2 * (90000 + 10000)), 1e-9);
  EXPECT_EQ(sum.latency->count(), 400u);
}

}  // namespace
}  // namespace skiff::vmm
