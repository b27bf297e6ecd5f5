// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/throttled_image.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "block/block_channel.h"
#include "block/filters/token_bucket.h"
#include "tests/block/filters/filter_fixture.h"

namespace skiff::block {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

class ThrottledImageTest : public FilterFixture {
 protected:
  void open(const ThrottleLimits& limits) {
    image_ = std::make_unique<ThrottledImage>(limits, make_below());
    channel_ = *image_->open_channel(loop_);
  }
  ~ThrottledImageTest() override {
    if (!channel_) return;
    channel_->hurry();
    loop_.run_until_idle();
  }

  // What `depth` requesters that never pause get done in `seconds`.
  struct Done {
    double requests = 0;
    double bytes = 0;
  };
  Done saturate(uint32_t depth, double seconds, const std::function<Sent&(uint32_t)>& next) {
    const int64_t end_ns = loop_.loop().now_ns() + static_cast<int64_t>(seconds * kSecondNs);
    std::vector<Sent*> slots(depth);
    uint32_t number = 0;
    for (Sent*& slot : slots) slot = &next(number++);
    Done done;
    std::mt19937 jitter(7);  // Timers are late.
    while (true) {
      loop_.advance_ns(20'000 + static_cast<int64_t>(jitter() % 60'000));
      if (loop_.loop().now_ns() >= end_ns) return done;
      for (Sent*& slot : slots) {
        if (!slot->ended) continue;
        done.requests += 1;
        done.bytes += static_cast<double>(slot->request.length_bytes);
        slot = &next(number++);
      }
      while (!sent_.empty() && sent_.front().ended) sent_.pop_front();
    }
  }
  Done saturate(uint32_t depth, double seconds, BlockOp op, size_t bytes) {
    return saturate(depth, seconds, [&](uint32_t) -> Sent& { return send(op, 0, bytes); });
  }
};

TEST_F(ThrottledImageTest, RequestRateIsHitWithinTwoPercent) {
  for (const uint64_t rate : {50u, 1000u, 7000u}) {
    for (const uint32_t depth : {1u, 8u}) {
      channel_.reset();
      open({.requests = {.total = rate}});
      const Done done = saturate(depth, 5, BlockOp::kRead, 512);
      // One requester pauses between an answer and the next request: a turn here.
      EXPECT_NEAR(done.requests / 5, static_cast<double>(rate), 0.02 * static_cast<double>(rate))
          << depth;
      channel_->hurry();
      loop_.run_until_idle();
    }
  }
}

TEST_F(ThrottledImageTest, ByteRateIsHitWithinTwoPercentWhateverTheSizes) {
  open({.bytes = {.total = 1 << 20}});
  const Done done = saturate(4, 10, [this](uint32_t number) -> Sent& {
    return send(number % 2 == 0 ? BlockOp::kRead : BlockOp::kWrite, 0,
                size_t{512} * (1 + number % 31));
  });
  EXPECT_NEAR(done.bytes / 10, 1 << 20, 0.02 * (1 << 20));
}

TEST_F(ThrottledImageTest, ReadsAndWritesHaveRatesOfTheirOwn) {
  open({.requests = {.read = 100, .write = 300}});
  const uint32_t depth = 8;
  std::vector<Sent*> slots;
  slots.reserve(size_t{2} * depth);
  for (uint32_t i = 0; i < 2 * depth; ++i)
    slots.push_back(&send(i < depth ? BlockOp::kRead : BlockOp::kWrite, 0, 512));
  std::array<double, 2> done = {};
  for (int turn = 0; turn < 50'000; ++turn) {
    loop_.advance_ns(100'000);
    for (uint32_t i = 0; i < slots.size(); ++i) {
      if (!slots[i]->ended) continue;
      done[i / depth] += 1;
      slots[i] = &send(slots[i]->request.op, 0, 512);
    }
  }
  EXPECT_NEAR(done[0] / 5, 100, 2);
  EXPECT_NEAR(done[1] / 5, 300, 6);
}

TEST_F(ThrottledImageTest, AfterAPauseABurstGoesAtOnceAndThenTheRateHolds) {
  open({.requests = {.total = 100, .burst = 50}});
  loop_.advance_ns(60 * kSecondNs);
  std::vector<Sent*> sent;
  sent.reserve(61);
  for (int i = 0; i < 61; ++i) sent.push_back(&send(BlockOp::kRead, 0, 512));
  loop_.run_until_idle();
  // The bucket's 50, and the one that goes when all before it are paid.
  for (size_t i = 0; i < sent.size(); ++i) EXPECT_EQ(sent[i]->ended, i < 51) << i;
  loop_.advance_ns(kSecondNs / 10);
  EXPECT_TRUE(sent.back()->ended);
}

TEST_F(ThrottledImageTest, RequestLargerThanTheRateGoesAndTheNextOnePays) {
  open({.bytes = {.total = 4096, .burst = 1}});
  Sent& large = send(BlockOp::kRead, 0, 16384);
  Sent& next = send(BlockOp::kRead, 0, 512);
  loop_.run_until_idle();
  EXPECT_TRUE(large.ended);
  loop_.advance_ns(4 * kSecondNs - 1'000'000);
  EXPECT_FALSE(next.ended);
  loop_.advance_ns(1'000'000);
  EXPECT_TRUE(next.ended);
}

TEST_F(ThrottledImageTest, WaitingRequestsGoInTheOrderInWhichTheyCame) {
  open({.requests = {.total = 1000, .burst = 1}});
  std::vector<Sent*> sent;
  sent.reserve(20);
  for (int i = 0; i < 20; ++i) sent.push_back(&send(BlockOp::kRead, 0, 512));
  for (int i = 0; i < 20; ++i) loop_.advance_ns(1'000'000);
  for (size_t i = 1; i < sent.size(); ++i) {
    ASSERT_TRUE(sent[i]->ended);
    EXPECT_GE(sent[i]->ended_ns, sent[i - 1]->ended_ns);
  }
}

TEST_F(ThrottledImageTest, HurryEndsTheWaitingAtOnce) {
  open({.requests = {.total = 1, .burst = 1}});
  std::vector<Sent*> sent;
  sent.reserve(10);
  for (int i = 0; i < 10; ++i) sent.push_back(&send(BlockOp::kWrite, 0, 512));
  loop_.run_until_idle();
  EXPECT_EQ(channel_->in_flight(), 8u);
  channel_->hurry();
  loop_.run_until_idle();
  EXPECT_EQ(channel_->in_flight(), 0u);
  for (const Sent* one : sent) EXPECT_EQ(one->result, 0);
}

TEST_F(ThrottledImageTest, ChannelsShareTheImagesRateFairly) {
  open({.requests = {.total = 1000}});
  ThrottledImage& image = static_cast<ThrottledImage&>(*image_);
  // Two askers who take turns get every other slot, whoever asks for more at once.
  BlockRequest request;
  const int64_t now = loop_.loop().now_ns();
  for (int i = 0; i < 100; ++i) image.due_ns(request, now);
  const int64_t first = image.due_ns(request, now);
  const int64_t second = image.due_ns(request, now);
  EXPECT_EQ(second - first, 1'000'000);
  EXPECT_GT(first, now);
}

TEST(TokenBucketTest, NothingOverflows) {
  TokenBucket bucket;
  bucket.set(1, 0);
  int64_t last = 0;
  for (int i = 0; i < 100; ++i) {
    const int64_t due = bucket.take(uint64_t{1} << 40, kSecondNs);
    EXPECT_GE(due, last);
    last = due;
  }
  bucket.set(UINT64_MAX, UINT64_MAX);
  EXPECT_LE(bucket.take(0, INT64_MAX / 64), INT64_MAX / 16);
}

}  // namespace
}  // namespace skiff::block
