// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "block/aligned_buffer.h"
#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/io_engine.h"
#include "tests/block/formats/raw_fixture.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

TEST_F(RawChannelTest, WritesAreTheFilesBytes) {
  open();
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 8192, out), 0);
  EXPECT_EQ(run_range(BlockOp::kFlush, 0, 0), 0);
  const auto file = dir_.read_file("disk.img");
  EXPECT_TRUE(std::equal(out.begin(), out.end(), file.begin() + 8192));
  std::vector<std::byte> in(4096);
  EXPECT_EQ(run(BlockOp::kRead, 8192, in), 0);
  EXPECT_EQ(in, out);
}

TEST_F(RawChannelTest, RangesThatLeaveTheDiskAreRefusedHoweverTheyWrap) {
  open();
  std::vector<std::byte> buffer(1024);
  for (const uint64_t offset :
       {kDiskBytes - 512, kDiskBytes, kDiskBytes + 512, uint64_t{1} << 63, ~uint64_t{511}})
    EXPECT_EQ(run(BlockOp::kRead, offset, buffer), -EINVAL) << offset;
  EXPECT_EQ(run(BlockOp::kWrite, kDiskBytes - 512, buffer), -EINVAL);
  EXPECT_EQ(run_range(BlockOp::kDiscard, 512, ~uint64_t{511}), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, 100, buffer), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, 0, std::span(buffer).first(100)), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, kDiskBytes - 1024, buffer), 0);
}

TEST_F(RawChannelTest, RequestOfNoLengthSucceedsWithoutTheFile) {
  open();
  EXPECT_EQ(run(BlockOp::kRead, kDiskBytes, std::span<std::byte>()), 0);
}

TEST_F(RawChannelTest, ReadOnlyImageRefusesEverythingThatChangesIt) {
  open({.path = dir_.make_sparse("disk.img", kDiskBytes), .access = WriteAccess::kReadOnly});
  std::vector<std::byte> buffer(512);
  EXPECT_EQ(run(BlockOp::kWrite, 0, buffer), -EROFS);
  EXPECT_EQ(run_range(BlockOp::kDiscard, 0, 512), -EROFS);
  EXPECT_EQ(run_range(BlockOp::kWriteZeroes, 0, 512), -EROFS);
  EXPECT_EQ(run(BlockOp::kRead, 0, buffer), 0);
  EXPECT_EQ(run_range(BlockOp::kFlush, 0, 0), 0);
}

TEST_F(RawChannelTest, FileThatShrankFailsReadsBehindItsEndAndNoOthers) {
  open();
  ASSERT_EQ(truncate(dir_.path("disk.img").c_str(), 4096), 0);
  std::vector<std::byte> buffer(8192);
  EXPECT_EQ(run(BlockOp::kRead, 65536, buffer), -EIO);
  EXPECT_EQ(run(BlockOp::kRead, 0, buffer), -EIO);  // Half of it.
  EXPECT_EQ(run(BlockOp::kRead, 0, std::span(buffer).first(4096)), 0);
}

TEST_F(RawChannelTest, ZeroedAndDiscardedRangesReadAsZeroes) {
  auto content = pattern(kDiskBytes);
  open({.path = dir_.make_file("disk.img", content)});
  const auto clear = [&](size_t offset, size_t length) {
    std::fill_n(content.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
  };
  if (image_->limits().discard) {
    EXPECT_EQ(run_range(BlockOp::kDiscard, 4096, 65536), 0);
    clear(4096, 65536);
  }
  if (image_->limits().write_zeroes) {
    EXPECT_EQ(run_range(BlockOp::kWriteZeroes, 100 * 512, 512 * 33), 0);
    clear(100 * 512, 512 * 33);
    Probe unmap(BlockOp::kWriteZeroes, 512 * 1024, 128 * 1024);
    unmap.request.may_unmap = true;
    EXPECT_EQ(run(unmap), 0);
    clear(512 * 1024, 128 * 1024);
  }
  EXPECT_EQ(dir_.read_file("disk.img"), content);
}

TEST_F(RawChannelErrorTest, AfterAFailedFlushAllLaterOnesFail) {
  Probe first(BlockOp::kFlush, 0, 0);
  submit(first);
  engine_->complete(-EIO);
  EXPECT_EQ(first.result, -EIO);
  Probe second(BlockOp::kFlush, 0, 0);
  EXPECT_EQ(run(second), -EIO);
  EXPECT_TRUE(engine_->pending.empty());  // The kernel would have said that all is well.
}

TEST_F(RawChannelErrorTest, FailedWriteComesBackAsItIs) {
  std::vector<std::byte> buffer(512);
  Probe write(BlockOp::kWrite, 0, buffer);
  submit(write);
  engine_->complete(-ENOSPC);
  EXPECT_EQ(write.result, -ENOSPC);
}

TEST_F(RawChannelErrorTest, BatchReachesTheEngineAsOne) {
  std::vector<std::byte> buffer(512);
  Probe a(BlockOp::kWrite, 0, buffer);
  Probe refused(BlockOp::kWrite, kDiskBytes, buffer);
  Probe b(BlockOp::kRead, 0, buffer);
  const std::array<BlockRequest*, 3> batch = {&a.request, &refused.request, &b.request};
  channel_->submit(batch);
  EXPECT_EQ(engine_->pending.size(), 2u);
  EXPECT_EQ(channel_->in_flight(), 3u);
  EXPECT_EQ(refused.completions, 0u);
  engine_->complete(512);
  engine_->complete(512);
  finish();
  EXPECT_EQ(refused.result, -EINVAL);
  EXPECT_EQ(a.result, 0);
  EXPECT_EQ(b.result, 0);
}

// A device with 4 KiB blocks under a guest with 512-byte sectors: every small write is a
// read-modify-write, and none may lose another's bytes.
class RawChannelUnalignedTest : public RawChannelTest {
 protected:
  void open_4k(IoEngineKind engine) {
    open({.path = dir_.make_file("disk.img", model_), .alignment_bytes_min = 4096}, engine);
  }
  std::vector<std::byte> model_ = pattern(kDiskBytes);
};

TEST_F(RawChannelUnalignedTest, SmallWritesIntoOneBlockAtTheSameTimeAllSurvive) {
  for (const IoEngineKind engine : {IoEngineKind::kAuto, IoEngineKind::kThreads}) {
    channel_.reset();
    image_.reset();
    open_4k(engine);
    auto out = pattern(16 * 512, 9);
    std::vector<std::unique_ptr<Probe>> probes;
    std::vector<BlockRequest*> batch;
    for (size_t i = 0; i < 16; ++i) {
      const auto sector = std::span(out).subspan(i * 512, 512);
      probes.push_back(std::make_unique<Probe>(BlockOp::kWrite, i * 512, sector));
      batch.push_back(&probes.back()->request);
    }
    channel_->submit(batch);
    finish();
    for (const auto& probe : probes) ASSERT_EQ(probe->result, 0);
    auto expected = model_;
    std::ranges::copy(out, expected.begin());
    EXPECT_EQ(dir_.read_file("disk.img"), expected);
  }
}

TEST_F(RawChannelUnalignedTest, RandomRequestsMatchAByteArray) {
  open_4k(IoEngineKind::kAuto);
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const AlignedBuffer memory(512 * 1024 + 8192, 4096);
  for (int round = 0; round < 300; ++round) {
    const size_t length = 512 * (1 + random() % (round % 10 == 0 ? 1000 : 40));
    const size_t offset = 512 * (random() % (kDiskBytes / 512 - length / 512 + 1));
    const size_t skew = random() % 3 == 0 ? 0 : random() % 4096;
    const auto bytes = memory.bytes().subspan(skew, length);
    const auto at = model_.begin() + static_cast<ptrdiff_t>(offset);
    if (random() % 2 == 0) {
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
      ASSERT_EQ(run(BlockOp::kWrite, offset, bytes), 0);
      std::ranges::copy(bytes, at);
    } else {
      ASSERT_EQ(run(BlockOp::kRead, offset, bytes), 0);
      ASSERT_TRUE(std::ranges::equal(bytes, std::span(at, length)));
    }
  }
  EXPECT_EQ(dir_.read_file("disk.img"), model_);
}

TEST_F(RawChannelUnalignedTest, BuffersAndSizesThatDirectIoRefusesGoThroughABounce) {
  const std::string path = dir_.make_file("disk.img", model_);
  auto probe_device = FileDevice::open({.path = path, .direct = DirectIo::kOn});
  if (!probe_device) GTEST_SKIP() << probe_device.error().message();
  (*probe_device).reset();
  open({.path = path, .direct = DirectIo::kOn});
  const AlignedBuffer memory(64 * 1024 + 4096, 4096);
  for (const size_t skew : {0u, 1u, 100u, 511u}) {
    const auto bytes = memory.bytes().subspan(skew, 3 * 512);
    ASSERT_EQ(run(BlockOp::kRead, 7 * 512, bytes), 0) << skew;
    EXPECT_TRUE(std::ranges::equal(bytes, std::span(model_).subspan(7 * 512, 3 * 512)));
    std::ranges::fill(bytes, static_cast<std::byte>(skew));
    ASSERT_EQ(run(BlockOp::kWrite, 9 * 512, bytes), 0) << skew;
    std::ranges::copy(bytes, model_.begin() + 9 * 512);
  }
  EXPECT_EQ(dir_.read_file("disk.img"), model_);
}

TEST_F(RawChannelUnalignedTest, ShrunkFileFailsTheReadModifyWrite) {
  open_4k(IoEngineKind::kAuto);
  ASSERT_EQ(truncate(dir_.path("disk.img").c_str(), 4096), 0);
  std::vector<std::byte> buffer(512);
  EXPECT_EQ(run(BlockOp::kWrite, 8192 + 512, buffer), -EIO);
  EXPECT_EQ(run(BlockOp::kRead, 8192 + 512, buffer), -EIO);
}

}  // namespace
}  // namespace skiff::block
