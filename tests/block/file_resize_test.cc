// SPDX-License-Identifier: GPL-2.0-or-later
// Another size for an image, given by us or by somebody else.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "tests/block/formats/raw_fixture.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using FileResizeTest = RawChannelTest;

TEST_F(FileResizeTest, GrownImageTakesRequestsBehindItsOldEnd) {
  open();
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, kDiskBytes, out), -EINVAL);
  ASSERT_TRUE(image_->resize(2 * kDiskBytes));
  EXPECT_EQ(image_->size_bytes(), 2 * kDiskBytes);
  EXPECT_EQ(run(BlockOp::kWrite, kDiskBytes, out), 0);
  EXPECT_EQ(dir_.read_file("disk.img").size(), 2 * kDiskBytes);
}

TEST_F(FileResizeTest, ShrunkImageRefusesWhatIsGoneAndKeepsTheRest) {
  open();
  auto out = pattern(4096);
  ASSERT_EQ(run(BlockOp::kWrite, 0, out), 0);
  ASSERT_TRUE(image_->resize(4096));
  EXPECT_EQ(run(BlockOp::kRead, 4096, out), -EINVAL);
  std::vector<std::byte> in(4096);
  EXPECT_EQ(run(BlockOp::kRead, 0, in), 0);
  EXPECT_EQ(in, out);
  // What comes back is empty, not what was there before.
  ASSERT_TRUE(image_->resize(8192));
  EXPECT_EQ(run(BlockOp::kRead, 4096, in), 0);
  EXPECT_EQ(in, std::vector<std::byte>(4096));
}

TEST_F(FileResizeTest, WithoutASizeTheFileIsFollowed) {
  open();
  ASSERT_EQ(truncate(dir_.path("disk.img").c_str(), 3 * kDiskBytes + 100), 0);
  ASSERT_TRUE(image_->resize(std::nullopt));
  EXPECT_EQ(image_->size_bytes(), 3 * kDiskBytes);
  ASSERT_EQ(truncate(dir_.path("disk.img").c_str(), 0), 0);
  EXPECT_FALSE(image_->resize(std::nullopt));
  EXPECT_EQ(image_->size_bytes(), 3 * kDiskBytes);  // As it was.
}

TEST_F(FileResizeTest, ImpossibleSizesAreRefusedAndChangeNothing) {
  open();
  for (const uint64_t size : {uint64_t{0}, uint64_t{511}, uint64_t{1000}, uint64_t{1} << 63,
                              ~uint64_t{0}, ~uint64_t{511}})
    EXPECT_FALSE(image_->resize(size)) << size;
  EXPECT_EQ(image_->size_bytes(), kDiskBytes);
  EXPECT_EQ(dir_.read_file("disk.img").size(), kDiskBytes);
}

TEST_F(FileResizeTest, ReadOnlyImageIsFollowedAndNotChanged) {
  open({.path = dir_.make_sparse("disk.img", kDiskBytes), .access = WriteAccess::kReadOnly});
  EXPECT_FALSE(image_->resize(2 * kDiskBytes));
  ASSERT_EQ(truncate(dir_.path("disk.img").c_str(), 2 * kDiskBytes), 0);
  ASSERT_TRUE(image_->resize(std::nullopt));
  EXPECT_EQ(image_->size_bytes(), 2 * kDiskBytes);
}

}  // namespace
}  // namespace skiff::block
