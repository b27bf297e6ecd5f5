// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/open_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class OpenImageTest : public ::testing::Test {
 protected:
  OpenImageTest() {
    auto pool = loop::WorkerPool::create({});
    if (pool) pool_ = *std::move(pool);
  }
  loop::Result<std::unique_ptr<BlockBackend>> open(const ImageOptions& options) {
    return open_image(options, *pool_);
  }
  loop::Error refusal(const ImageOptions& options) {
    auto image = open(options);
    EXPECT_FALSE(image) << "opened";
    return image ? loop::Error(loop::ErrorKind::kIo, "") : image.error();
  }

  TempDir dir_;
  std::unique_ptr<loop::WorkerPool> pool_;
};

TEST_F(OpenImageTest, RegularFileHasItsSize) {
  auto image = open({.path = dir_.make_sparse("disk.img", 1 << 20)});
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ((*image)->size_bytes(), uint64_t{1} << 20);
  EXPECT_FALSE((*image)->is_read_only());
  EXPECT_EQ((*image)->name(), dir_.path("disk.img"));
}

TEST_F(OpenImageTest, AskingWhatAFileCanDoDoesNotChangeIt) {
  const auto content = pattern(5 * 512);
  ASSERT_TRUE(open({.path = dir_.make_file("disk.img", content)}));
  EXPECT_EQ(dir_.read_file("disk.img"), content);
}

TEST_F(OpenImageTest, MissingFileIsNamed) {
  const loop::Error error = refusal({.path = dir_.path("nowhere.img")});
  EXPECT_EQ(error.kind(), loop::ErrorKind::kNotFound);
  EXPECT_THAT(error.message(), AllOf(HasSubstr("nowhere.img"), HasSubstr("No such file")));
}

TEST_F(OpenImageTest, WhatIsNoDiskIsRefusedByItsKind) {
  std::filesystem::create_directory(dir_.path("folder"));
  ASSERT_EQ(mkfifo(dir_.path("fifo").c_str(), 0600), 0);
  EXPECT_THAT(refusal({.path = dir_.path("folder")}).message(), HasSubstr("is a directory"));
  EXPECT_THAT(refusal({.path = dir_.path("fifo")}).message(), HasSubstr("is a FIFO"));
  EXPECT_THAT(refusal({.path = "/dev/null"}).message(), HasSubstr("is a character device"));
}

TEST_F(OpenImageTest, FileWithoutPermissionSaysWhatWouldDo) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const std::string path = dir_.make_sparse("disk.img", 4096);
  ASSERT_EQ(chmod(path.c_str(), 0400), 0);
  const loop::Error error = refusal({.path = path});
  EXPECT_EQ(error.kind(), loop::ErrorKind::kPermission);
  EXPECT_THAT(error.message(), HasSubstr("readonly=on"));
  EXPECT_TRUE(open({.path = path, .access = WriteAccess::kReadOnly}));
}

TEST_F(OpenImageTest, EmptyFileSaysHowToGiveItASize) {
  EXPECT_THAT(refusal({.path = dir_.make_sparse("empty.img", 0)}).message(),
              HasSubstr("truncate -s"));
  EXPECT_THAT(refusal({.path = dir_.make_sparse("tiny.img", 511)}).message(),
              HasSubstr("less than one sector"));
}

TEST_F(OpenImageTest, PartOfASectorAtTheEndIsNotShown) {
  auto image = open({.path = dir_.make_sparse("odd.img", 5 * 512 + 100)});
  ASSERT_TRUE(image);
  EXPECT_EQ((*image)->size_bytes(), uint64_t{5 * 512});
}

TEST_F(OpenImageTest, OtherFormatIsRefusedUnlessRawWasSaid) {
  std::vector<std::byte> content(4096);
  const std::string magic = "QFI\xfb";
  std::ranges::copy(std::as_bytes(std::span(magic)), content.begin());
  const std::string path = dir_.make_file("disk.qcow2", content);
  const loop::Error error = refusal({.path = path});
  EXPECT_EQ(error.kind(), loop::ErrorKind::kUnsupported);
  EXPECT_THAT(error.message(), AllOf(HasSubstr("qcow2"), HasSubstr("format=raw")));
  EXPECT_TRUE(open({.path = path, .format = ImageFormat::kRaw}));
}

TEST_F(OpenImageTest, DirectIoWorksOrIsRefusedWithTheOptionsName) {
  auto image = open({.path = dir_.make_sparse("disk.img", 1 << 20), .direct = DirectIo::kOn});
  if (!image) {
    EXPECT_EQ(image.error().kind(), loop::ErrorKind::kUnsupported);
    EXPECT_THAT(image.error().message(), HasSubstr("direct=on"));
    return;
  }
  EXPECT_GE((*image)->limits().alignment_bytes, 512u);
  EXPECT_GT((*image)->limits().memory_alignment_bytes, 1u);
}

TEST_F(OpenImageTest, DirectIoOnASizeThatIsNotAlignedSaysHowToGrowIt) {
  const auto device = FileDevice::open({.path = dir_.make_sparse("disk.img", 9 * 512),
                                        .direct = DirectIo::kOff,
                                        .alignment_bytes_min = 4096});
  ASSERT_FALSE(device);
  EXPECT_THAT(device.error().message(), HasSubstr("truncate -s %4096"));
}

TEST_F(OpenImageTest, ReadOnlyImageOffersNothingThatChangesIt) {
  auto image = open({.path = dir_.make_sparse("disk.img", 4096), .access = WriteAccess::kReadOnly});
  ASSERT_TRUE(image);
  EXPECT_TRUE((*image)->is_read_only());
  EXPECT_FALSE((*image)->limits().discard);
  EXPECT_FALSE((*image)->limits().write_zeroes);
}

}  // namespace
}  // namespace skiff::block
