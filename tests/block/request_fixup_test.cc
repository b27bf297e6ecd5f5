// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/request_fixup.h"

#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace skiff::block {
namespace {

using Verdict = RequestProgress::Verdict;

class RequestFixupTest : public ::testing::Test {
 protected:
  RequestFixupTest() {
    for (auto& buffer : buffers_) iov_.push_back({buffer.data(), buffer.size()});
  }
  void begin(IoOp op) { progress_.begin(op, 1000, 300, iov_); }
  IoStep& next() {
    progress_.next_step(step_);
    return step_;
  }

  std::array<std::array<char, 100>, 3> buffers_;
  std::vector<iovec> iov_;
  RequestProgress progress_;
  IoStep step_;
};

TEST_F(RequestFixupTest, WholeTransferIsOneStep) {
  begin(IoOp::kRead);
  EXPECT_EQ(next().iov.data(), iov_.data());
  EXPECT_EQ(step_.iov.size(), 3u);
  EXPECT_EQ(step_.offset_bytes, 1000u);
  EXPECT_EQ(progress_.advance(300), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 300);
}

TEST_F(RequestFixupTest, ShortReadInsideASegmentAsksForTheRestOfItAndThenForTheOthers) {
  begin(IoOp::kRead);
  next();
  ASSERT_EQ(progress_.advance(150), Verdict::kMore);
  ASSERT_EQ(next().iov.size(), 1u);
  EXPECT_EQ(step_.iov.front().iov_base, buffers_[1].data() + 50);
  EXPECT_EQ(step_.iov.front().iov_len, 50u);
  EXPECT_EQ(step_.offset_bytes, 1150u);
  EXPECT_EQ(step_.length_bytes, 50u);
  ASSERT_EQ(progress_.advance(20), Verdict::kMore);
  EXPECT_EQ(next().iov.front().iov_base, buffers_[1].data() + 70);
  ASSERT_EQ(progress_.advance(30), Verdict::kMore);
  EXPECT_EQ(next().iov.data(), iov_.data() + 2);
  EXPECT_EQ(step_.offset_bytes, 1200u);
  EXPECT_EQ(progress_.advance(100), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 300);
}

TEST_F(RequestFixupTest, EndOfFileReportsWhatWasRead) {
  begin(IoOp::kRead);
  ASSERT_EQ(progress_.advance(120), Verdict::kMore);
  EXPECT_EQ(progress_.advance(0), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 120);
}

TEST_F(RequestFixupTest, DirectReadThatEndsOffAlignmentIsTheEndOfTheFile) {
  begin(IoOp::kRead);
  ASSERT_EQ(progress_.advance(120), Verdict::kMore);
  EXPECT_EQ(progress_.advance(-EINVAL), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 120);
}

TEST_F(RequestFixupTest, MisalignedDirectReadIsStillAnError) {
  begin(IoOp::kRead);
  EXPECT_EQ(progress_.advance(-EINVAL), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), -EINVAL);
}

TEST_F(RequestFixupTest, ErrorAfterAPartOfAWriteFailsTheWhole) {
  begin(IoOp::kWrite);
  ASSERT_EQ(progress_.advance(100), Verdict::kMore);
  EXPECT_EQ(progress_.advance(-ENOSPC), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), -ENOSPC);
}

TEST_F(RequestFixupTest, WriteThatMovesNothingHasNoRoom) {
  begin(IoOp::kWrite);
  EXPECT_EQ(progress_.advance(0), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), -ENOSPC);
}

TEST_F(RequestFixupTest, InterruptedStepIsTakenAgain) {
  begin(IoOp::kWrite);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(progress_.advance(-EINTR), Verdict::kMore);
  EXPECT_EQ(next().iov.size(), 3u);
}

TEST_F(RequestFixupTest, EagainMayBlockAfterAWhileAndGivesUpInTheEnd) {
  begin(IoOp::kRead);
  EXPECT_EQ(progress_.advance(-EAGAIN), Verdict::kMore);
  int tries = 1;
  Verdict verdict = Verdict::kMore;
  while (verdict == Verdict::kMore && ++tries < 100) verdict = progress_.advance(-EAGAIN);
  EXPECT_EQ(verdict, Verdict::kMoreBlocking);
  while (verdict == Verdict::kMoreBlocking && ++tries < 100) verdict = progress_.advance(-EAGAIN);
  EXPECT_EQ(verdict, Verdict::kFinished);
  EXPECT_EQ(progress_.result(), -EAGAIN);
  EXPECT_LT(tries, 100);
}

TEST_F(RequestFixupTest, ProgressResetsThePatience) {
  begin(IoOp::kRead);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(progress_.advance(-EAGAIN), Verdict::kMore);
  ASSERT_EQ(progress_.advance(100), Verdict::kMore);
  EXPECT_EQ(progress_.advance(-EAGAIN), Verdict::kMore);
}

TEST_F(RequestFixupTest, MoreSegmentsThanTheKernelTakesGoInSeveralSteps) {
  std::vector<char> bytes(IOV_MAX + 10);
  std::vector<iovec> many;
  many.reserve(bytes.size());
  for (char& byte : bytes) many.push_back({&byte, 1});
  progress_.begin(IoOp::kWrite, 0, many.size(), many);
  EXPECT_EQ(next().iov.size(), size_t{IOV_MAX});
  EXPECT_EQ(step_.length_bytes, uint64_t{IOV_MAX});
  ASSERT_EQ(progress_.advance(IOV_MAX), Verdict::kMore);
  EXPECT_EQ(next().iov.size(), 10u);
  EXPECT_EQ(step_.offset_bytes, uint64_t{IOV_MAX});
  EXPECT_EQ(progress_.advance(10), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), IOV_MAX + 10);
}

TEST_F(RequestFixupTest, EmptySegmentsAreSkipped) {
  const std::array<iovec, 4> iov = {iovec{buffers_[0].data(), 0}, iovec{buffers_[0].data(), 100},
                                    iovec{buffers_[1].data(), 0}, iovec{buffers_[1].data(), 100}};
  progress_.begin(IoOp::kRead, 0, 200, iov);
  ASSERT_EQ(progress_.advance(100), Verdict::kMore);
  progress_.next_step(step_);
  EXPECT_EQ(step_.length_bytes, 100u);
  EXPECT_EQ(progress_.advance(100), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 200);
}

TEST_F(RequestFixupTest, OperationsWithoutDataGiveZeroOrTheError) {
  progress_.begin(IoOp::kFlush, 0, 0, {});
  EXPECT_EQ(progress_.advance(0), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 0);
  progress_.begin(IoOp::kDiscard, 512, 1024, {});
  EXPECT_EQ(next().length_bytes, 1024u);
  EXPECT_EQ(progress_.advance(-EOPNOTSUPP), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), -EOPNOTSUPP);
}

TEST_F(RequestFixupTest, FallocateNeverChangesTheSize) {
  EXPECT_EQ(fallocate_mode(IoOp::kDiscard), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  EXPECT_EQ(fallocate_mode(IoOp::kWriteZeroes), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
}

}  // namespace
}  // namespace skiff::block
