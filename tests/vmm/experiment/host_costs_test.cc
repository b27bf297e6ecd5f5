// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/host_costs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "vmm/experiment/simulator/probes.h"
#include "vmm/experiment/simulator/real_run.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

TEST(HostCosts, TheirJsonIsWhatReplacesThem) {
  HostCosts costs;
  ASSERT_TRUE(apply_costs_text(costs, R"({"wake_ns": 123, "exit_ns": 4.6})"));
  EXPECT_EQ(costs.wake_ns, 123);
  HostCosts back;
  ASSERT_TRUE(apply_costs_text(back, costs_json(costs)));
  EXPECT_EQ(back.wake_ns, 123);
  EXPECT_EQ(back.exit_ns, 5);
}

TEST(HostCosts, WrongOnesAreNamed) {
  HostCosts costs;
  const auto error = [&](const char* json) {
    const auto applied = apply_costs_text(costs, json);
    return applied ? "no error" : applied.error().message();
  };
  EXPECT_THAT(error(R"({"wake": 1})"), HasSubstr("wake_ns"));
  EXPECT_THAT(error(R"({"wake_ns": -1})"), HasSubstr("wake_ns: -1"));
  EXPECT_THAT(error(R"({"wake_ns": "1us"})"), HasSubstr("nanoseconds"));
}

// How large they are is the host's; here: that they are measured and not the defaults, and sane.
TEST(Probes, FindCostsOfThisHost) {
  HostCosts costs;
  for (const HostCostInfo& info : host_cost_infos()) costs.*info.value = -1;
  ASSERT_TRUE(probe_threads(costs));
  ASSERT_TRUE(probe_block_layer(costs));
  ASSERT_TRUE(probe_virtqueue(costs));
  for (const double cost : {costs.wake_ns, costs.timer_ns, costs.notify_ns, costs.turn_ns}) {
    EXPECT_GE(cost, 0);
    EXPECT_LT(cost, 1e8);
  }
  for (const double cost : {costs.request_ns, costs.queue_ns}) {
    EXPECT_GT(cost, 1);
    EXPECT_LT(cost, 1e6);
  }
}

TEST(RealRun, EveryRequestComesBack) {
  for (const uint32_t pairs : {1U, 2U}) {
    const auto run = run_real({.pairs = pairs, .rate = 2000, .duration_ns = 200'000'000});
    ASSERT_TRUE(run) << run.error().message();
    // Arrivals at random: 400 a pair, give or take 20.
    EXPECT_NEAR(static_cast<double>(run->completed), 400.0 * pairs, 120 * pairs);
    EXPECT_GT(run->home_cpu_ns, 0);
    EXPECT_GT(run->latency.percentile_ns(50), 0);
  }
}

}  // namespace
}  // namespace skiff::vmm
