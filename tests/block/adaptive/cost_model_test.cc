// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/adaptive/cost_model.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "block/adaptive/adaptive_counters.h"
#include "block/adaptive/service_time.h"
#include "block/request_fixup.h"
#include "loop/clock.h"

namespace skiff::block {
namespace {

constexpr int64_t kUs = 1000;
constexpr int64_t kMs = 1'000'000;

TEST(ServiceTimeTest, FollowsAChangeAndDoesNotFollowOneOutlier) {
  ServiceTime time;
  for (int i = 0; i < 100; ++i) time.record(10 * kUs);
  time.record(4 * kMs);
  EXPECT_LT(time.mean_ns(), 15 * kUs);
  EXPECT_LT(time.cost_ns(), 17 * kUs);
  for (int i = 0; i < 20'000; ++i) time.record(i % 100 == 0 ? 4 * kMs : 10 * kUs);
  EXPECT_NEAR(static_cast<double>(time.cost_ns()), 50e3, 20e3);  // What they cost on average.
  for (int i = 0; i < 100; ++i) time.record(100 * kUs);
  EXPECT_NEAR(static_cast<double>(time.mean_ns()), 100e3, 5e3);
}

TEST(ServiceTimeTest, AnOutlierRightAtTheStartIsForgottenAtTheFirstUsualTime) {
  ServiceTime time;
  time.record(4 * kMs);
  time.record(30 * kUs);
  EXPECT_EQ(time.mean_ns(), 30 * kUs);
  EXPECT_LT(time.tail_ns(), 200 * kUs);
}

TEST(ServiceTimeTest, TailIsWhatOneInAHundredExceeds) {
  ServiceTime time;
  for (int i = 0; i < 1000; ++i) time.record(i % 20 == 0 ? 900 * kUs : 10 * kUs);
  EXPECT_GE(time.tail_ns(), 900 * kUs);
  ServiceTime steady;
  for (int i = 0; i < 1000; ++i) steady.record(i % 500 == 0 ? 900 * kUs : 10 * kUs);
  EXPECT_LE(steady.tail_ns(), 20 * kUs);
}

// A device that answers as told, served by what the model chooses.
class CostModelTest : public ::testing::Test {
 protected:
  struct World {
    int64_t call_ns = 30 * kUs;
    // A request's latency beside depth - 1 others.
    std::function<int64_t(uint32_t)> ring_ns = [](uint32_t) { return 46 * kUs; };
    double others_per_s = 0;
    bool hits = true;  // With RWF_NOWAIT.
  };

  void start(const CostModel::Options& options = {}) {
    model_ = std::make_unique<CostModel>(clock_, options, counters_);
  }
  CostModel::Choice one(const CostModel::Request& request) {
    const CostModel::Choice choice = model_->choose(request);
    ++served_[static_cast<size_t>(choice.mode)];
    const bool inlined = choice.mode == ServiceMode::kInline;
    const int64_t took_ns = inlined ? world_.call_ns : world_.ring_ns(request.depth);
    clock_.advance_ns(took_ns / request.depth);
    if (!choice.measure) return choice;
    if (inlined && !world_.hits) {
      model_->inline_missed(request, kUs);
      return choice;
    }
    arrivals_due_ += world_.others_per_s * static_cast<double>(took_ns) / 1e9;
    const auto arrivals = static_cast<uint64_t>(arrivals_due_);
    arrivals_due_ -= static_cast<double>(arrivals);
    model_->observe_others(arrivals, took_ns);
    if (inlined) {
      model_->inline_done(request, took_ns);
      model_->observe_regret(request, arrivals, took_ns);
    } else {
      model_->async_done(request, choice.mode, took_ns);
    }
    return choice;
  }
  // The share of requests that go inline, after so many to learn from.
  double inline_share(const CostModel::Request& request, int learn = 4000) {
    for (int i = 0; i < learn; ++i) one(request);
    served_ = {};
    for (int i = 0; i < 4000; ++i) one(request);
    return static_cast<double>(served_[0]) / 4000;
  }
  uint64_t revisions() const { return counters_.revisions.load(); }

  loop::ManualClock clock_;
  AdaptiveCounters counters_;
  World world_;
  double arrivals_due_ = 0;
  std::array<uint64_t, 4> served_{};
  std::unique_ptr<CostModel> model_;
  const CostModel::Request read_ = {.op = IoOp::kRead, .length_bytes = 4096, .depth = 1};
};

TEST_F(CostModelTest, AloneOnItsLoopARequestGoesInlineWhereThatSavesTime) {
  start();
  EXPECT_GT(inline_share(read_), 0.98);
}

TEST_F(CostModelTest, SeveralRequestsOverlapOnTheRingInsteadOfQueueingInline) {
  start();
  CostModel::Request both = read_;
  both.depth = 2;
  EXPECT_LT(inline_share(both), 0.02);
}

TEST_F(CostModelTest, AFileThatIsQuickerInlineThanAnyOverlapGoesInlineAtEveryDepth) {
  world_.call_ns = kUs;
  world_.ring_ns = [](uint32_t depth) { return 3 * kUs + 2 * kUs * depth; };
  start();
  for (const uint32_t depth : {1U, 2U, 4U, 32U}) {
    CostModel::Request request = read_;
    request.depth = depth;
    EXPECT_GT(inline_share(request), 0.95) << depth;
  }
}

TEST_F(CostModelTest, ALoopThatOthersUseIsNotHeldForLongerThanIsSaved) {
  world_.others_per_s = 20'000;
  start();
  EXPECT_LT(inline_share(read_), 0.02);
}

TEST_F(CostModelTest, ACallOfAMicrosecondHoldsNobodyUp) {
  world_ = {.call_ns = kUs, .ring_ns = [](uint32_t) { return 5 * kUs; }, .others_per_s = 20'000};
  start();
  EXPECT_GT(inline_share(read_), 0.95);
}

TEST_F(CostModelTest, RareEventsAreNoReasonToGiveInlineUp) {
  world_.others_per_s = 100;
  start();
  EXPECT_GT(inline_share(read_), 0.9);
}

TEST_F(CostModelTest, CallsThatMayTakeLongAreNotTried) {
  world_ = {.call_ns = 5 * kMs, .ring_ns = [](uint32_t) { return 5 * kMs; }};
  start();
  for (int i = 0; i < 10'000; ++i) EXPECT_NE(one(read_).mode, ServiceMode::kInline);
}

TEST_F(CostModelTest, AVcpusLoopIsHeldForLess) {
  start({.hold_cap_ns = 20 * kUs});
  EXPECT_LT(inline_share(read_), 0.02);
}

TEST_F(CostModelTest, LearningTakesAtMostOneRequestIn256AndLessWhereTheAnswerIsClear) {
  world_.ring_ns = [](uint32_t) { return 34 * kUs; };  // Not clearly worse.
  start();
  inline_share(read_);
  const uint64_t before = counters_.explored.load();
  for (int i = 0; i < 25'600; ++i) one(read_);
  const uint64_t spent = counters_.explored.load() - before;
  EXPECT_GT(spent, 0U);
  EXPECT_LE(spent, 104U);

  world_.ring_ns = [](uint32_t) { return 300 * kUs; };
  inline_share(read_, 40'000);
  const uint64_t clear = counters_.explored.load();
  for (int i = 0; i < 25'600; ++i) one(read_);
  EXPECT_LE(counters_.explored.load() - clear, 10U);
}

TEST_F(CostModelTest, AFileThatBecomesSlowInlineIsHandedOver) {
  start();
  EXPECT_GT(inline_share(read_), 0.98);
  world_.call_ns = 5 * kMs;
  world_.ring_ns = [](uint32_t) { return 5 * kMs; };
  EXPECT_LT(inline_share(read_, 32), 0.02);
  EXPECT_GE(revisions(), 1U);
}

TEST_F(CostModelTest, AFileThatBecomesQuickInlineIsFoundOut) {
  world_.call_ns = 60 * kUs;
  start();
  EXPECT_LT(inline_share(read_), 0.02);
  world_.call_ns = 20 * kUs;
  EXPECT_GT(inline_share(read_, 300'000), 0.9);
}

TEST_F(CostModelTest, ABadMomentIsForgottenAndOnePreemptionChangesNothing) {
  world_ = {.call_ns = kUs, .ring_ns = [](uint32_t) { return 9 * kUs; }};
  start();
  EXPECT_GT(inline_share(read_), 0.98);
  model_->inline_done(read_, 4 * kMs);
  EXPECT_GT(inline_share(read_, 0), 0.98);
  EXPECT_EQ(revisions(), 0U);
  for (int i = 0; i < 200; ++i) model_->inline_done(read_, 4 * kMs);
  EXPECT_LT(inline_share(read_, 100), 0.05);
  EXPECT_GT(inline_share(read_, 300'000), 0.95);
}

TEST_F(CostModelTest, KindsOfRequestsAreJudgedApart) {
  start();
  EXPECT_GT(inline_share(read_), 0.98);
  world_.call_ns = 150 * kUs;
  world_.ring_ns = [](uint32_t) { return 100 * kUs; };
  CostModel::Request write = read_;
  write.op = IoOp::kWrite;
  EXPECT_LT(inline_share(write), 0.02);
  CostModel::Request large = read_;
  large.length_bytes = 128 * 1024;
  EXPECT_LT(inline_share(large), 0.02);
  EXPECT_EQ(one(read_).mode, ServiceMode::kInline);
}

TEST_F(CostModelTest, WhatMustReachTheMediumOrIsLargeIsNeverInline) {
  world_ = {.call_ns = 1, .ring_ns = [](uint32_t) { return kMs; }};
  start();
  const std::array<CostModel::Request, 5> never = {{
      {.op = IoOp::kFlush},
      {.op = IoOp::kDiscard, .length_bytes = 4096},
      {.op = IoOp::kWriteZeroes, .length_bytes = 4096},
      {.op = IoOp::kWrite, .fua = true, .length_bytes = 4096},
      {.op = IoOp::kRead, .length_bytes = 256 * 1024 + 1},
  }};
  for (const CostModel::Request& request : never) {
    EXPECT_FALSE(CostModel::may_be_inline(request));
    for (int i = 0; i < 2000; ++i) ASSERT_EQ(model_->choose(request).mode, ServiceMode::kRingAsync);
  }
}

TEST_F(CostModelTest, RegretSwitchesInlineOffForLongerEachTime) {
  start();
  inline_share(read_);
  int64_t off_before_ns = 0;
  for (int trip = 0; trip < 6; ++trip) {
    // One arrival per call waits for 15 us, about what a call saves; three wait for too much.
    while (counters_.regrets.load() == static_cast<uint64_t>(trip))
      model_->observe_regret(read_, 3, world_.call_ns);
    const int64_t start_ns = clock_.now_ns();
    while (model_->choose(read_).mode != ServiceMode::kInline) clock_.advance_ns(100 * kUs);
    const int64_t off_ns = clock_.now_ns() - start_ns;
    EXPECT_GE(off_ns, off_before_ns * 3 / 2) << trip;
    off_before_ns = off_ns;
  }
  EXPECT_GE(off_before_ns, 32 * kMs);
  // Forgiven after a while without.
  for (int i = 0; i < 64; ++i) model_->observe_regret(read_, 0, world_.call_ns);
  while (counters_.regrets.load() == 6) model_->observe_regret(read_, 3, world_.call_ns);
  clock_.advance_ns(2 * kMs);
  EXPECT_EQ(model_->choose(read_).mode, ServiceMode::kInline);
}

TEST_F(CostModelTest, PageCacheHitsAreTriedAndMissesAreNotTriedForLong) {
  world_ = {.call_ns = kUs, .ring_ns = [](uint32_t) { return 6 * kUs; }};
  start({.nowait = true});
  EXPECT_GT(inline_share(read_), 0.98);
  world_.hits = false;
  world_.ring_ns = [](uint32_t) { return 80 * kUs; };
  EXPECT_LT(inline_share(read_), 0.05);
}

TEST_F(CostModelTest, WithoutARingItIsInlineOrThePool) {
  start({.ring = false});
  EXPECT_GT(inline_share(read_), 0.98);
  EXPECT_EQ(served_[1] + served_[2], 0U);
  EXPECT_EQ(model_->choose({.op = IoOp::kFlush}).mode, ServiceMode::kPool);
}

TEST_F(CostModelTest, SubmissionsThatBlockSendRequestsToThePoolForAWhile) {
  world_.call_ns = 60 * kUs;
  start();
  inline_share(read_);
  model_->submit_took(500 * kUs);
  EXPECT_EQ(model_->choose(read_).mode, ServiceMode::kRingWait);  // One is none.
  EXPECT_TRUE(model_->choose(read_).watch_submit);
  model_->submit_took(500 * kUs);
  EXPECT_EQ(model_->choose(read_).mode, ServiceMode::kPool);
  EXPECT_EQ(model_->choose({.op = IoOp::kFlush}).mode, ServiceMode::kPool);
  clock_.advance_ns(2 * kMs);
  EXPECT_EQ(model_->choose(read_).mode, ServiceMode::kRingWait);
  EXPECT_EQ(counters_.submit_stalls.load(), 2U);
}

TEST_F(CostModelTest, ACallMustEndBeforeTheNextTimer) {
  start();
  inline_share(read_);
  EXPECT_TRUE(model_->fits_before(read_, 0, 100 * kUs));
  EXPECT_FALSE(model_->fits_before(read_, 0, 10 * kUs));
}

}  // namespace
}  // namespace skiff::block
