// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/request_fixup.h"

#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <algorithm>
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

TEST_F(RequestFixupTest, EmptySegmentAtTheStartIsNoStepOfItsOwn) {
  const std::array<iovec, 3> iov = {iovec{buffers_[0].data(), 0}, iovec{buffers_[1].data(), 0},
                                    iovec{buffers_[2].data(), 100}};
  progress_.begin(IoOp::kRead, 0, 100, iov);
  progress_.next_step(step_, 1);
  EXPECT_EQ(step_.length_bytes, 100u);
  EXPECT_EQ(step_.iov.front().iov_base, buffers_[2].data());
}

TEST_F(RequestFixupTest, SegmentLargerThanAStepIsCut) {
  constexpr uint64_t kStep = RequestProgress::kMaxStepBytes;
  std::vector<char> bytes(2 * kStep + 100);
  const iovec iov = {bytes.data(), bytes.size()};
  progress_.begin(IoOp::kRead, 0, bytes.size(), {&iov, 1});
  for (const uint64_t at : {uint64_t{0}, kStep, 2 * kStep}) {
    next();
    ASSERT_EQ(step_.iov.size(), 1u);
    EXPECT_EQ(step_.iov.front().iov_base, bytes.data() + at);
    EXPECT_EQ(step_.offset_bytes, at);
    EXPECT_EQ(step_.length_bytes, std::min(kStep, bytes.size() - at));
    const Verdict verdict = progress_.advance(static_cast<int32_t>(step_.length_bytes));
    EXPECT_EQ(verdict, at < 2 * kStep ? Verdict::kMore : Verdict::kFinished);
  }
  EXPECT_EQ(progress_.result(), static_cast<int32_t>(bytes.size()));
}

// As a device with 4 KiB blocks and buffers of any alignment may be asked.
TEST_F(RequestFixupTest, ManySegmentsAreCutWhereBlocksEnd) {
  constexpr uint64_t kSegment = 1536;
  constexpr size_t kCount = 1024;
  std::vector<char> bytes(kSegment * kCount);
  std::vector<iovec> many;
  many.reserve(kCount);
  for (size_t i = 0; i < kCount; ++i) many.push_back({bytes.data() + i * kSegment, kSegment});
  progress_.begin(IoOp::kWrite, 0, bytes.size(), many);
  uint64_t done_bytes = 0;
  Verdict verdict = Verdict::kMore;
  while (verdict == Verdict::kMore) {
    next();
    EXPECT_EQ(step_.offset_bytes, done_bytes);
    EXPECT_LE(step_.length_bytes, RequestProgress::kMaxStepBytes);
    EXPECT_EQ(step_.length_bytes % 4096, 0u);
    done_bytes += step_.length_bytes;
    verdict = progress_.advance(static_cast<int32_t>(step_.length_bytes));
  }
  EXPECT_EQ(done_bytes, bytes.size());
}

TEST_F(RequestFixupTest, DurableWriteCarriesTheFlagInEveryStep) {
  progress_.begin(IoOp::kWrite, 1000, 300, iov_, Fua::kByFlag);
  EXPECT_TRUE(next().dsync);
  ASSERT_EQ(progress_.advance(100), Verdict::kMore);
  EXPECT_TRUE(next().dsync);
  EXPECT_EQ(step_.op, IoOp::kWrite);
  EXPECT_EQ(progress_.advance(200), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 300);
}

TEST_F(RequestFixupTest, FileWithoutTheFlagIsFlushedAfterTheWrite) {
  progress_.begin(IoOp::kWrite, 1000, 300, iov_, Fua::kByFlag);
  next();
  ASSERT_EQ(progress_.advance(-EOPNOTSUPP), Verdict::kMore);
  EXPECT_FALSE(next().dsync);
  EXPECT_EQ(step_.op, IoOp::kWrite);
  EXPECT_EQ(step_.length_bytes, 300u);
  ASSERT_EQ(progress_.advance(300), Verdict::kMore);
  EXPECT_EQ(next().op, IoOp::kFlush);
  EXPECT_TRUE(step_.iov.empty());
  EXPECT_EQ(progress_.advance(0), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), 300);
}

TEST_F(RequestFixupTest, DurableWriteWhoseFlushFailsFails) {
  progress_.begin(IoOp::kWrite, 1000, 300, iov_, Fua::kByFlush);
  ASSERT_EQ(progress_.advance(300), Verdict::kMore);
  ASSERT_EQ(progress_.advance(-EINTR), Verdict::kMore);
  EXPECT_EQ(progress_.advance(-EIO), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), -EIO);
  // And one that was not written needs no flush.
  progress_.begin(IoOp::kWrite, 1000, 300, iov_, Fua::kByFlush);
  EXPECT_EQ(progress_.advance(-ENOSPC), Verdict::kFinished);
  EXPECT_EQ(progress_.result(), -ENOSPC);
}

TEST_F(RequestFixupTest, ReadsAreNeverDurable) {
  progress_.begin(IoOp::kRead, 1000, 300, iov_, Fua::kByFlush);
  EXPECT_FALSE(next().dsync);
  EXPECT_EQ(progress_.advance(300), Verdict::kFinished);
}

TEST(RefusalTest, EndsPastTheLargestOffsetAreInvalid) {
  constexpr uint64_t kEnd = uint64_t{1} << 63;
  for (const IoOp op : {IoOp::kRead, IoOp::kWrite, IoOp::kDiscard, IoOp::kWriteZeroes}) {
    EXPECT_EQ(refusal_of(op, 0, 4096), 0);
    EXPECT_EQ(refusal_of(op, kEnd - 4097, 4096), 0);
    EXPECT_EQ(refusal_of(op, kEnd - 4096, 4096), -EINVAL);
    EXPECT_EQ(refusal_of(op, kEnd, 0), -EINVAL);
    EXPECT_EQ(refusal_of(op, ~uint64_t{0}, 1), -EINVAL);
    EXPECT_EQ(refusal_of(op, 1, ~uint64_t{0}), -EINVAL);
  }
  EXPECT_EQ(refusal_of(IoOp::kDiscard, 0, uint64_t{1} << 40), 0);
  EXPECT_EQ(refusal_of(IoOp::kRead, 0, uint64_t{1} << 31), -EINVAL);
  EXPECT_EQ(refusal_of(IoOp::kFlush, ~uint64_t{0}, ~uint64_t{0}), 0);
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
