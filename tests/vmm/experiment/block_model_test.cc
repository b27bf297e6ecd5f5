// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/block_model.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "vmm/experiment/simulator/host_costs.h"

namespace skiff::vmm {
namespace {

// Everything free but what a test asks for.
HostCosts no_costs() {
  HostCosts costs;
  for (const HostCostInfo& info : host_cost_infos()) costs.*info.value = 0;
  return costs;
}

ModelOptions one_vcpu(double rate) {
  return {.vcpus = 1, .cores = 4, .rate = rate, .duration_ns = 2'000'000'000};
}

TEST(BlockModel, ALonelyRequestTakesTheSumOfItsSteps) {
  HostCosts costs = no_costs();
  costs.timer_ns = 1000;
  costs.doorbell_ns = 200;
  costs.wake_ns = 5000;
  costs.notify_ns = 300;
  costs.request_ns = 400;
  costs.op_ns = 100;
  ModelOptions options = one_vcpu(100);
  options.latency_ns = 30'000;
  const ModelResult result = simulate_block(options, costs);
  // Timer, doorbell, wake, half of the request, device, wake, the other half, notify, wake.
  const double expected_ns = 1000 + 200 + 5000 + 250 + 30'000 + 5000 + 250 + 300 + 5000;
  EXPECT_NEAR(static_cast<double>(result.latency.percentile_ns(50)), expected_ns, expected_ns / 32);
  EXPECT_NEAR(result.home_cpu_ns, 800, 1);
  EXPECT_NEAR(result.wakes_per_request, 3, 0.1);
}

TEST(BlockModel, AVcpuOfItsOwnPaysExitsAndNoWakesOfOthers) {
  HostCosts costs = no_costs();
  costs.exit_ns = 2000;
  costs.wake_ns = 5000;
  costs.request_ns = 400;
  ModelOptions options = one_vcpu(100);
  options.home = ModelOptions::Home::kVcpu;
  options.latency_ns = 30'000;
  const double expected_ns = 2000 + 200 + 30'000 + 5000 + 2000 + 200;
  const ModelResult halted = simulate_block(options, costs);
  EXPECT_NEAR(static_cast<double>(halted.latency.percentile_ns(50)), expected_ns, expected_ns / 32);
  // A guest that computes is there already.
  options.busy_guest = true;
  const ModelResult busy = simulate_block(options, costs);
  EXPECT_NEAR(static_cast<double>(busy.latency.percentile_ns(50)), expected_ns - 5000,
              expected_ns / 32);
}

TEST(BlockModel, OneThreadDoesAsManyAsItsTimeAllows) {
  HostCosts costs = no_costs();
  costs.request_ns = 5000;  // At most 200,000 a second.
  ModelOptions options;     // 320,000 are asked for.
  options.duration_ns = 200'000'000;
  const ModelResult one = simulate_block(options, costs);
  EXPECT_TRUE(one.saturated());
  EXPECT_NEAR(static_cast<double>(one.completed) / one.seconds, 200'000, 4000);
  EXPECT_NEAR(one.busiest, 1, 0.001);
  options.iothreads = 4;
  const ModelResult four = simulate_block(options, costs);
  EXPECT_FALSE(four.saturated());
  EXPECT_NEAR(static_cast<double>(four.completed) / four.seconds, 320'000, 6000);
  EXPECT_NEAR(four.busiest, 0.4, 0.02);
}

TEST(BlockModel, FewerCoresThanThreadsMakeThemWait) {
  HostCosts costs = no_costs();
  costs.request_ns = 2000;
  ModelOptions options = {
      .iothreads = 4, .vcpus = 8, .cores = 16, .rate = 20'000, .duration_ns = 200'000'000};
  const double apart_ns = simulate_block(options, costs).latency.mean_ns();
  options.cores = 1;
  const double together_ns = simulate_block(options, costs).latency.mean_ns();
  EXPECT_GT(together_ns, 1.05 * apart_ns);
}

TEST(BlockModel, AThreadOfTheSameCoreIsNotWokenOnAnother) {
  HostCosts costs = no_costs();
  costs.wake_ns = 5000;
  ModelOptions options = one_vcpu(100);
  EXPECT_NEAR(simulate_block(options, costs).latency.mean_ns(), 10'000, 300);
  options.cores = 1;
  EXPECT_LT(simulate_block(options, costs).latency.mean_ns(), 100);
}

TEST(BlockModel, IsTheSameForTheSameSeedAndAnotherForAnother) {
  const HostCosts costs;
  ModelOptions options = {.vcpus = 4, .cores = 8, .duration_ns = 100'000'000};
  const ModelResult first = simulate_block(options, costs);
  const ModelResult again = simulate_block(options, costs);
  EXPECT_EQ(first.completed, again.completed);
  EXPECT_EQ(first.latency.mean_ns(), again.latency.mean_ns());
  options.seed = 2;
  EXPECT_NE(first.latency.mean_ns(), simulate_block(options, costs).latency.mean_ns());
}

}  // namespace
}  // namespace skiff::vmm
