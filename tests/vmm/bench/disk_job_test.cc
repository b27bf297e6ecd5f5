// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/disk_job.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "block/testing/fake_channel.h"
#include "loop/testing/manual_loop.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {
namespace {

constexpr int64_t kMs = 1'000'000;

class DiskJobTest : public ::testing::Test {
 protected:
  void make(uint32_t depth, uint64_t rate = 0) {
    auto channel = image_.open_channel(loop_);
    ASSERT_TRUE(channel);
    job_ = std::make_unique<DiskJob>(
        loop_, *std::move(channel),
        DiskJob::Options{.source = {AccessPattern::kRandRead, 512, {0, 64}, 1},
                         .block_bytes = 512,
                         .depth = depth,
                         .rate = rate});
  }
  // From now on: `warm_up_ms` that do not count, then `ms` that do.
  void start(int64_t ms, int64_t warm_up_ms = 0) {
    const int64_t begin_ns = loop_.loop().now_ns() + warm_up_ms * kMs;
    job_->start({begin_ns, begin_ns + ms * kMs}, [this] { ++ends_; });
    loop_.run_until_idle();
  }
  block::FakeChannel& channel() { return image_.channel(); }
  void complete_all() {
    for (size_t left = channel().pending().size(); left > 0; --left) channel().complete(0);
    loop_.run_until_idle();
  }

  loop::ManualLoop loop_;
  block::FakeBackend image_{{.sectors = 64}};
  std::unique_ptr<DiskJob> job_;
  int ends_ = 0;
};

TEST_F(DiskJobTest, KeepsTheDepthUnderWay) {
  make(4);
  start(100);
  EXPECT_EQ(channel().pending().size(), 4u);
  channel().complete(1);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(channel().pending().size(), 4u);
  EXPECT_EQ(job_->completed(), 2u);
  job_->stop();
  complete_all();
}

TEST_F(DiskJobTest, WhatEndsInOneTurnIsSentAsOneBatch) {
  make(8);
  start(100);
  ASSERT_EQ(image_.submit_calls(), 1u);
  for (int i = 0; i < 3; ++i) channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(image_.submit_calls(), 2u);
  job_->stop();
  complete_all();
}

TEST_F(DiskJobTest, EndsWhenTheTimeIsOverAndTheLastRequestIsBack) {
  make(2);
  start(10);
  loop_.advance_ns(11 * kMs);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(ends_, 0);
  EXPECT_EQ(channel().pending().size(), 1u);
  loop_.advance_ns(5 * kMs);
  complete_all();
  EXPECT_EQ(ends_, 1);
  EXPECT_EQ(job_->record().reads, 2u);
  EXPECT_EQ(job_->record().latency.max_ns(), 16 * kMs);
  EXPECT_EQ(job_->record().end_ns, loop_.loop().now_ns());
}

TEST_F(DiskJobTest, TheWarmUpDoesNotCount) {
  make(1);
  start(10, 5);
  for (int i = 0; i < 15; ++i) {
    loop_.advance_ns(1 * kMs);
    complete_all();
  }
  EXPECT_EQ(ends_, 1);
  EXPECT_EQ(job_->completed(), 15u);
  EXPECT_EQ(job_->record().reads, 10u);
}

TEST_F(DiskJobTest, AFailedRequestEndsTheJobAndIsRemembered) {
  make(2);
  start(10);
  channel().fail(1, -EIO);
  loop_.run_until_idle();
  EXPECT_EQ(channel().pending().size(), 1u);
  complete_all();
  EXPECT_EQ(ends_, 1);
  ASSERT_TRUE(job_->record().failure);
  EXPECT_EQ(job_->record().failure->os_error, EIO);
}

TEST_F(DiskJobTest, StoppedBeforeItsTimeItWaitsForWhatIsUnderWay) {
  make(2);
  start(1000);
  job_->stop();
  EXPECT_EQ(ends_, 0);
  complete_all();
  EXPECT_EQ(ends_, 1);
  job_->stop();
  EXPECT_EQ(ends_, 1);
}

TEST_F(DiskJobTest, AFixedRateIsKeptWhileTheDiskKeepsUp) {
  make(4, 1000);
  start(100);
  uint64_t seen = 0;
  for (int64_t ms = 0; ms < 101; ++ms) {
    seen += channel().pending().size();
    complete_all();
    loop_.advance_ns(1 * kMs);
  }
  complete_all();
  EXPECT_EQ(seen, 100u);
  EXPECT_EQ(ends_, 1);
  EXPECT_EQ(job_->record().missed, 0u);
  EXPECT_EQ(job_->record().latency.max_ns(), 0);
}

TEST_F(DiskJobTest, AStallIsChargedToAllWhoWereDueMeanwhile) {
  make(1, 1000);
  start(100);
  // The first takes 10 ms; those due at 1, 2, ... 9 ms go out late, each when the one before is
  // back, which takes no time.
  loop_.advance_ns(10 * kMs);
  while (!channel().pending().empty()) complete_all();
  EXPECT_EQ(job_->record().reads, 11u);
  EXPECT_EQ(job_->record().latency.max_ns(), 10 * kMs);
  // 10, 9, ... 0 ms.
  EXPECT_DOUBLE_EQ(job_->record().latency.mean_ns(), 5.0 * kMs);
  job_->stop();
}

TEST_F(DiskJobTest, WhatCouldNotBeSentByTheEndIsReported) {
  make(1, 1000);
  start(100);
  loop_.advance_ns(200 * kMs);
  complete_all();
  EXPECT_EQ(ends_, 1);
  EXPECT_EQ(job_->record().reads, 1u);
  EXPECT_EQ(job_->record().missed, 99u);
}

}  // namespace
}  // namespace skiff::vmm
