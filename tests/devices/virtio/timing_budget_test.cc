// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/timing_budget.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace skiff::devices {
namespace {

struct Outcome {
  uint64_t timed = 0;
  uint64_t weight = 0;
};

Outcome run(int64_t period_ns, size_t requests, uint64_t batches) {
  TimingBudget budget;
  Outcome outcome;
  for (uint64_t i = 0; i < batches; ++i) {
    if (!budget.wants_next()) continue;
    ++outcome.timed;
    outcome.weight += budget.begin(static_cast<int64_t>(i) * period_ns, requests);
  }
  return outcome;
}

TEST(TimingBudgetTest, BatchesOfADiskAreAllTimed) {
  EXPECT_EQ(run(60'000, 1, 1'000).timed, 1'000u);
  EXPECT_EQ(run(200'000, 32, 1'000).timed, 1'000u);
}

TEST(TimingBudgetTest, FastBatchesAreTimedForTwoPercentAtMost) {
  for (const int64_t period_ns : {100, 300, 1'000, 5'000}) {
    for (const size_t requests : {1U, 8U, 32U}) {
      const Outcome outcome = run(period_ns, requests, 100'000);
      const double cost = static_cast<double>(outcome.timed * (requests + 5) * 25);
      EXPECT_LE(cost / static_cast<double>(period_ns * 100'000), 0.02) << period_ns;
      EXPECT_GT(outcome.timed, 50u);
    }
  }
}

TEST(TimingBudgetTest, WeightsAddUpToAllBatches) {
  const Outcome outcome = run(300, 1, 100'000);
  EXPECT_LT(outcome.timed, 10'000u);
  EXPECT_LE(outcome.weight, 100'000u);
  EXPECT_GE(outcome.weight, 100'000u - 1'024);
}

}  // namespace
}  // namespace skiff::devices
