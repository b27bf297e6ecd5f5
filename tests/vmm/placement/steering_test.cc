// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/steering.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tests/vmm/placement/fake_host.h"
#include "vmm/placement/msi_target.h"

namespace skiff::vmm {
namespace {

MsiTarget target(std::vector<uint32_t> vcpus) {
  return {MsiTarget::Kind::kVcpus, std::move(vcpus)};
}

TEST(ChooseVcpu, SingleTargetWinsOverWhoRang) {
  EXPECT_EQ(choose_vcpu({.queue = 0, .vcpus = 4, .target = target({2}), .submitter = 1}).vcpu, 2u);
}

TEST(ChooseVcpu, WithoutASingleTargetItIsWhoRangLast) {
  EXPECT_EQ(choose_vcpu({.queue = 0, .vcpus = 4, .submitter = 3}).vcpu, 3u);
  EXPECT_EQ(choose_vcpu({.vcpus = 4, .target = target({1, 3}), .submitter = 3}).vcpu, 3u);
  const MsiTarget everybody{MsiTarget::Kind::kBroadcast, {}};
  EXPECT_EQ(choose_vcpu({.vcpus = 4, .target = everybody, .submitter = 2}).vcpu, 2u);
}

TEST(ChooseVcpu, WhoRangFromOutsideTheSetDoesNotCount) {
  EXPECT_EQ(choose_vcpu({.vcpus = 4, .target = target({1, 3}), .submitter = 0}).vcpu, 1u);
  EXPECT_EQ(choose_vcpu({.queue = 1, .vcpus = 4, .submitter = 9}).vcpu, 1u);
}

TEST(ChooseVcpu, SteerOffKeepsQueuesWhereTheirNumberSays) {
  EXPECT_EQ(
      choose_vcpu({.steer = false, .queue = 6, .vcpus = 4, .target = target({0}), .submitter = 1})
          .vcpu,
      2u);
}

class BalancerTest : public ::testing::Test {
 protected:
  std::optional<BalancerMove> period() {
    now_ns_ += Balancer::kPeriodNs;
    return balancer_.step(now_ns_, threads_, queues_);
  }
  HostTopology host_ = two_sockets_with_smt();
  Balancer balancer_{host_};
  int64_t now_ns_ = 1;
  std::vector<BalancedThread> threads_ = {{.cpu = 1, .load = 0.1}, {.cpu = 17, .load = 0.1}};
  std::vector<BalancedQueue> queues_ = {
      {.thread = 0, .allowed = {0, 1}, .target_cpu = 16, .requests_per_s = 20'000}};
};

TEST_F(BalancerTest, QueueMovesToTheThreadOnItsTargetsSocketAfterThreePeriods) {
  EXPECT_FALSE(period());
  EXPECT_FALSE(period());
  const auto move = period();
  ASSERT_TRUE(move);
  EXPECT_EQ(move->queue, 0u);
  EXPECT_EQ(move->thread, 1u);
  queues_[0].thread = 1;
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(period());
}

TEST_F(BalancerTest, WishThatIsInterruptedBeginsAnew) {
  EXPECT_FALSE(period());
  EXPECT_FALSE(period());
  queues_[0].target_cpu = 0;
  EXPECT_FALSE(period());
  queues_[0].target_cpu = 16;
  EXPECT_FALSE(period());
  EXPECT_FALSE(period());
  EXPECT_TRUE(period());
}

TEST_F(BalancerTest, CallsWithinAPeriodCountOnce) {
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(balancer_.step(++now_ns_, threads_, queues_));
}

TEST_F(BalancerTest, SmallGainsMoveNothing) {
  threads_[1].cpu = 2;  // Both share the target's cache; one is a little busier.
  queues_[0].target_cpu = 0;
  queues_[0].requests_per_s = 1000;
  threads_[0].load = 0.12;
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(period());
}

TEST_F(BalancerTest, BusyThreadLosesAQueueToAnIdleOne) {
  threads_ = {{.cpu = 1, .load = 0.95}, {.cpu = 2, .load = 0.0}};
  queues_ = {{.thread = 0, .allowed = {0, 1}, .target_cpu = 0, .requests_per_s = 200'000},
             {.thread = 0, .allowed = {0, 1}, .target_cpu = 0, .requests_per_s = 200'000}};
  EXPECT_FALSE(period());
  EXPECT_FALSE(period());
  ASSERT_TRUE(period());
}

TEST_F(BalancerTest, QueueThatIsAllTheLoadStaysWhereItIs) {
  threads_ = {{.cpu = 1, .load = 0.8}, {.cpu = 2, .load = 0.0}};
  queues_[0] = {.thread = 0, .allowed = {0, 1}, .target_cpu = 0, .requests_per_s = 400'000};
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(period());
}

TEST_F(BalancerTest, ThreadOnTheTargetsOwnCpuIsLeftForItsSibling) {
  threads_ = {{.cpu = 5, .load = 0.1}, {.cpu = 37, .load = 0.1}};
  queues_[0].target_cpu = 5;
  period();
  period();
  const auto move = period();
  ASSERT_TRUE(move);
  EXPECT_EQ(move->thread, 1u);
}

TEST_F(BalancerTest, IdleQueueAndThreadThatIsNotAllowedAreLeftAlone) {
  queues_[0].requests_per_s = 10;
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(period());
  queues_[0].requests_per_s = 20'000;
  queues_[0].allowed = {0};
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(period());
}

TEST_F(BalancerTest, OneQueueMovesAtATime) {
  queues_.push_back(queues_[0]);
  queues_[1].requests_per_s = 50'000;
  period();
  period();
  const auto move = period();
  ASSERT_TRUE(move);
  EXPECT_EQ(move->queue, 1u);
  EXPECT_FALSE(period());
}

}  // namespace
}  // namespace skiff::vmm
