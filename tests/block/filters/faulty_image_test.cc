// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/faulty_image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/filters/fault_plan.h"
#include "block/filters/fault_rules.h"
#include "block/testing/fake_channel.h"
#include "loop/check.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "tests/block/filters/filter_fixture.h"

namespace skiff::block {
namespace {

FaultRules rules_of(const std::string& text) {
  auto rules = FaultRules::parse(text);
  SKIFF_CHECK(rules.has_value());
  return *std::move(rules);
}

class FaultyImageTest : public FilterFixture {
 protected:
  void open(const std::string& rules,
            FakeBackend::Completion completion = FakeBackend::Completion::kNextTurn) {
    auto plan = std::make_unique<FaultPlan>(rules_of(rules));
    plan_ = plan.get();
    image_ = std::make_unique<FaultyImage>(std::move(plan), make_below(completion));
    channel_ = *image_->open_channel(loop_);
  }
  FaultPlan* plan_ = nullptr;
};

TEST_F(FaultyImageTest, WithoutRulesABatchGoesThroughAsItIs) {
  open("");
  Sent& a = make(BlockOp::kWrite, 0, 512);
  Sent& b = make(BlockOp::kRead, 0, 512);
  const std::array<BlockRequest*, 2> batch = {&a.request, &b.request};
  channel_->submit(batch);
  EXPECT_EQ(below_->submit_calls(), 1u);
  EXPECT_EQ(channel_->in_flight(), 2u);
  loop_.run_until_idle();
  EXPECT_EQ(a.result, 0);
  EXPECT_EQ(channel_->in_flight(), 0u);
  EXPECT_EQ(plan_->faults(), 0u);
}

TEST_F(FaultyImageTest, ErrorsHitTheOperationAndTheRangeAndNothingElse) {
  open("op=write,at=4K+4K,error=ENOSPC");
  EXPECT_EQ(run(BlockOp::kWrite, 4096, 512), -ENOSPC);
  EXPECT_EQ(run(BlockOp::kWrite, 7680, 1024), -ENOSPC);  // Touches its last sector.
  EXPECT_EQ(run(BlockOp::kWrite, 3584, 1024), -ENOSPC);
  EXPECT_EQ(run(BlockOp::kWrite, 3584, 512), 0);
  EXPECT_EQ(run(BlockOp::kWrite, 8192, 512), 0);
  EXPECT_EQ(run(BlockOp::kRead, 4096, 512), 0);
  EXPECT_EQ(run(BlockOp::kFlush, 0, 0), 0);
  EXPECT_EQ(plan_->faults(), 3u);
}

TEST_F(FaultyImageTest, FailedRequestNeverReachedTheDisk) {
  open("op=write,error=EIO");
  EXPECT_EQ(run(BlockOp::kWrite, 0, 512, std::byte{7}), -EIO);
  EXPECT_EQ(below_->requests(), 0u);
  EXPECT_EQ(disk(0), std::byte{0});
}

TEST_F(FaultyImageTest, NthEveryAndTimesCountTheRequestsThatMatch) {
  open("op=read,nth=2,every=3,times=2,error=EIO");
  std::vector<int> failed;
  for (int number = 1; number <= 12; ++number) {
    EXPECT_EQ(run(BlockOp::kWrite, 0, 512), 0);
    if (run(BlockOp::kRead, 0, 512) != 0) failed.push_back(number);
  }
  EXPECT_EQ(failed, (std::vector<int>{2, 5}));
}

TEST_F(FaultyImageTest, SameSeedSameFaults) {
  const auto failures = [this](const std::string& rules) {
    channel_.reset();
    open(rules);
    std::vector<bool> failed;
    failed.reserve(200);
    for (int i = 0; i < 200; ++i) failed.push_back(run(BlockOp::kRead, 0, 512) != 0);
    return failed;
  };
  const auto first = failures("seed=5;p=0.3,error=EIO");
  EXPECT_EQ(failures("seed=5;p=0.3,error=EIO"), first);
  EXPECT_NE(failures("seed=6;p=0.3,error=EIO"), first);
  const auto hits = std::count(first.begin(), first.end(), true);
  EXPECT_GT(hits, 30);
  EXPECT_LT(hits, 90);
}

TEST_F(FaultyImageTest, DelayedRequestWaitsAndCountsAsInFlight) {
  open("op=read,delay=5ms;op=read,delay=2ms;op=write,delay=1ms,error=EIO");
  Sent& read = send(BlockOp::kRead, 0, 512);
  Sent& write = send(BlockOp::kWrite, 0, 512);
  loop_.advance_ns(999'999);
  EXPECT_EQ(channel_->in_flight(), 2u);
  loop_.advance_ns(1);
  EXPECT_TRUE(write.ended);
  EXPECT_EQ(write.result, -EIO);
  loop_.advance_ns(5'999'999);
  EXPECT_FALSE(read.ended);
  loop_.advance_ns(1);  // 5 + 2 ms.
  EXPECT_EQ(read.result, 0);
  EXPECT_EQ(channel_->in_flight(), 0u);
}

TEST_F(FaultyImageTest, HurryEndsTheDelays) {
  open("delay=3600s");
  Sent& a = send(BlockOp::kRead, 0, 512);
  Sent& b = send(BlockOp::kFlush, 0, 0);
  channel_->hurry();
  EXPECT_FALSE(a.ended);
  loop_.run_until_idle();
  EXPECT_EQ(a.result, 0);
  EXPECT_EQ(b.result, 0);
}

TEST_F(FaultyImageTest, TornWriteLeavesAPrefixOfSectors) {
  open("op=write,torn=3");
  EXPECT_EQ(run(BlockOp::kWrite, 0, 8 * 512, std::byte{9}), -EIO);
  for (uint64_t sector = 0; sector < 8; ++sector)
    EXPECT_EQ(disk(sector), sector < 3 ? std::byte{9} : std::byte{0}) << sector;
  // One that is shorter than that is not done in whole.
  EXPECT_EQ(run(BlockOp::kWrite, 16 * 512, 2 * 512, std::byte{9}), -EIO);
  EXPECT_EQ(disk(16), std::byte{9});
  EXPECT_EQ(disk(17), std::byte{0});
  EXPECT_EQ(run(BlockOp::kWrite, 32 * 512, 512, std::byte{9}), -EIO);
  EXPECT_EQ(disk(32), std::byte{0});
}

TEST_F(FaultyImageTest, TornWriteIsInFlightUntilItsPrefixIsDone) {
  open("op=write,torn=1", FakeBackend::Completion::kManual);
  Sent& sent = send(BlockOp::kWrite, 0, 1024);
  loop_.run_until_idle();
  EXPECT_EQ(channel_->in_flight(), 1u);
  below_->channel().complete(0);
  EXPECT_EQ(sent.result, -EIO);
  EXPECT_EQ(channel_->in_flight(), 0u);
}

TEST_F(FaultyImageTest, RulesChangeWhileRequestsWait) {
  open("op=write,error=EIO;op=read,delay=1s");
  Sent& delayed = send(BlockOp::kRead, 0, 512);
  ASSERT_TRUE(image_->set_faults(rules_of("")));
  EXPECT_EQ(run(BlockOp::kWrite, 0, 512), 0);
  EXPECT_EQ(run(BlockOp::kRead, 0, 512), 0);
  EXPECT_FALSE(delayed.ended);  // Decided before.
  loop_.advance_ns(1'000'000'000);
  EXPECT_EQ(delayed.result, 0);
  ASSERT_TRUE(image_->set_faults(rules_of("op=write,error=ENOSPC")));
  EXPECT_EQ(run(BlockOp::kWrite, 0, 512), -ENOSPC);
}

TEST_F(FaultyImageTest, AnImageWithoutTheNodeSaysHowToGetIt) {
  make_below();
  const auto set = make_below()->set_faults(rules_of("error=EIO"));
  ASSERT_FALSE(set);
  EXPECT_EQ(set.error().kind(), loop::ErrorKind::kUnsupported);
  EXPECT_NE(set.error().message().find("fault="), std::string::npos);
}

// For the thread sanitizer: one thread replaces what the other reads.
TEST(FaultPlanTest, RulesAreReplacedUnderTheEyesOfAChannel) {
  FaultPlan plan(rules_of("error=EIO"));
  std::atomic<bool> over{false};
  loop::Thread writer = *loop::Thread::create({.name = "rules"}, [&] {
    for (int i = 0; i < 2000; ++i) plan.set(rules_of(i % 2 == 0 ? "error=ENOSPC" : ""));
    over = true;
  });
  FaultDice dice(plan);
  BlockRequest request;
  while (!over) {
    const int32_t result = dice.next(request).result;
    ASSERT_TRUE(result == 0 || result == -EIO || result == -ENOSPC);
  }
  writer.join();
  EXPECT_TRUE(dice.is_idle());
}

}  // namespace
}  // namespace skiff::block
