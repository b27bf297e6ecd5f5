// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/overwrite_guard.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "block/block_channel.h"
#include "block/testing/fake_channel.h"
#include "loop/result.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"
#include "tests/temp_dir.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class OverwriteGuard : public ::testing::Test {
 protected:
  void put_byte(const std::string& path, uint64_t offset_bytes) {
    const loop::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(::pwrite(fd.get(), "x", 1, static_cast<off_t>(offset_bytes)), 1);
  }
  TempDir dir_;
};

TEST_F(OverwriteGuard, AFileOfHolesMayBeWritten) {
  EXPECT_TRUE(may_overwrite_file(dir_.make_sparse("holes", 4 * kMiB), 0));
}

TEST_F(OverwriteGuard, OneByteOfDataIsEnoughToRefuse) {
  const std::string path = dir_.make_sparse("data", 4 * kMiB);
  put_byte(path, 3 * kMiB);
  const auto verdict = may_overwrite_file(path, 0);
  ASSERT_FALSE(verdict);
  EXPECT_EQ(verdict.error().kind(), loop::ErrorKind::kInvalidArgument);
  EXPECT_THAT(verdict.error().message(), HasSubstr("holds data"));
  EXPECT_THAT(verdict.error().message(), HasSubstr("--overwrite"));
}

TEST_F(OverwriteGuard, DataBehindTheUsedPartDoesNotMatter) {
  const std::string path = dir_.make_sparse("data", 4 * kMiB);
  put_byte(path, 3 * kMiB);
  EXPECT_TRUE(may_overwrite_file(path, 2 * kMiB));
  EXPECT_FALSE(may_overwrite_file(path, 4 * kMiB));
}

TEST_F(OverwriteGuard, AFileThatIsNotThereIsNamed) {
  const auto verdict = may_overwrite_file(dir_.path("missing"), 0);
  ASSERT_FALSE(verdict);
  EXPECT_THAT(verdict.error().message(), HasSubstr("missing"));
}

TEST_F(OverwriteGuard, RoomThatWasNeverWrittenIsFound) {
  EXPECT_TRUE(has_holes(dir_.make_sparse("holes", 4 * kMiB), 0));
  const std::string half = dir_.make_file("half", pattern(kMiB));
  EXPECT_FALSE(has_holes(half, 0));
  ASSERT_EQ(::truncate(half.c_str(), 2 * kMiB), 0);
  EXPECT_TRUE(has_holes(half, 0));
  EXPECT_FALSE(has_holes(half, kMiB));
  EXPECT_FALSE(has_holes("/dev/null", 0));
  EXPECT_FALSE(has_holes("null:size=1G", 0));
}

class StatusWalkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    channel_ = *image_.open_channel(loop_);
    walk_.emplace(*channel_, 8 * 512, [this](StatusWalk::Finding finding) { finding_ = finding; });
    walk_->start();
  }
  // Answers the one request that is pending.
  void answer(uint64_t sectors, bool zeroes) {
    block::BlockRequest& request = *image_.channel().pending().at(0);
    ASSERT_EQ(request.op, block::BlockOp::kStatus);
    request.status = {.length_bytes = sectors * 512, .reads_as_zeroes = zeroes};
    image_.channel().fail(0, 0);
  }

  loop::ManualLoop loop_;
  block::FakeBackend image_{{.sectors = 8}};
  std::unique_ptr<block::BlockChannel> channel_;
  std::optional<StatusWalk> walk_;
  std::optional<StatusWalk::Finding> finding_;
};

TEST_F(StatusWalkTest, ZeroesToTheEndAreEmpty) {
  answer(3, true);
  EXPECT_FALSE(finding_);
  EXPECT_EQ(image_.channel().pending().at(0)->offset_bytes, 3u * 512);
  answer(5, true);
  EXPECT_EQ(finding_, StatusWalk::Finding::kEmpty);
}

TEST_F(StatusWalkTest, DataAnywhereIsData) {
  answer(3, true);
  answer(1, false);
  EXPECT_EQ(finding_, StatusWalk::Finding::kData);
}

TEST_F(StatusWalkTest, WhoCannotTellMayHoldData) {
  image_.channel().fail(0, -EOPNOTSUPP);
  EXPECT_EQ(finding_, StatusWalk::Finding::kUnknown);
  EXPECT_THAT(overwrite_refusal("nbd://x", *finding_).message(), HasSubstr("--overwrite"));
}

TEST_F(StatusWalkTest, AnAnswerOfNoLengthEndsTheWalk) {
  answer(0, true);
  EXPECT_EQ(finding_, StatusWalk::Finding::kUnknown);
}

}  // namespace
}  // namespace skiff::vmm
