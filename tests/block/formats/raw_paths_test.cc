// SPDX-License-Identifier: GPL-2.0-or-later
// The ways of a request that are not a read or a write of its bytes: flushes that share one system
// call, FUA, zeroes that have to be written out, block status.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "tests/block/formats/raw_fixture.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using RawFlushTest = RawChannelErrorTest;
using RawZeroesTest = RawChannelErrorTest;

TEST_F(RawFlushTest, FlushesThatArriveWhileOneRunsShareTheNextOne) {
  std::array<Probe, 5> flushes;
  for (Probe& flush : flushes) flush.request.op = BlockOp::kFlush;
  submit(flushes[0]);
  ASSERT_EQ(engine_->pending.size(), 1u);
  for (size_t i = 1; i < flushes.size(); ++i) submit(flushes[i]);
  EXPECT_EQ(engine_->pending.size(), 1u);  // One in flight, whatever arrives.
  EXPECT_EQ(channel_->in_flight(), 5u);

  engine_->complete(0);
  EXPECT_EQ(flushes[0].completions, 1u);
  EXPECT_EQ(flushes[1].completions, 0u);  // It came too late for the first.
  ASSERT_EQ(engine_->pending.size(), 1u);
  engine_->complete(0);
  for (const Probe& flush : flushes) EXPECT_EQ(flush.result, 0);
  EXPECT_EQ(engine_->submitted, 2u);
}

TEST_F(RawFlushTest, FlushesOfOneBatchAreOne) {
  std::array<Probe, 3> flushes;
  std::array<BlockRequest*, 3> batch = {};
  for (size_t i = 0; i < 3; ++i) {
    flushes[i].request.op = BlockOp::kFlush;
    batch[i] = &flushes[i].request;
  }
  channel_->submit(batch);
  ASSERT_EQ(engine_->pending.size(), 1u);
  engine_->complete(0);
  for (const Probe& flush : flushes) EXPECT_EQ(flush.result, 0);
}

TEST_F(RawFlushTest, FailedFlushFailsThoseThatWaitedForTheNext) {
  Probe first(BlockOp::kFlush, 0, 0);
  Probe second(BlockOp::kFlush, 0, 0);
  submit(first);
  submit(second);
  engine_->complete(-ENOSPC);
  EXPECT_EQ(first.result, -ENOSPC);
  EXPECT_EQ(second.result, -EIO);
  EXPECT_TRUE(engine_->pending.empty());  // A second fdatasync would say that all is well.
  EXPECT_EQ(channel_->in_flight(), 0u);
}

TEST_F(RawFlushTest, FlushAskedForInACompletionIsANewOne) {
  Probe again(BlockOp::kFlush, 0, 0);
  Probe first(BlockOp::kFlush, 0, 0);
  struct Context {
    BlockChannel* channel;
    BlockRequest* next;
  } context{channel_.get(), &again.request};
  first.request.owner = &context;
  first.request.done = [](BlockRequest& done, int32_t) {
    auto& [channel, next] = *static_cast<Context*>(done.owner);
    channel->submit({&next, 1});
  };
  submit(first);
  engine_->complete(0);
  ASSERT_EQ(engine_->pending.size(), 1u);
  EXPECT_EQ(again.completions, 0u);
  engine_->complete(0);
  EXPECT_EQ(again.result, 0);
}

TEST_F(RawFlushTest, FuaReachesTheEngineWithTheWriteAndOnlyWithIt) {
  std::vector<std::byte> buffer(512);
  Probe write(BlockOp::kWrite, 0, buffer);
  write.request.fua = true;
  Probe read(BlockOp::kRead, 0, buffer);
  read.request.fua = true;
  submit(write);
  submit(read);
  EXPECT_TRUE(engine_->pending[0]->fua);
  EXPECT_FALSE(engine_->pending[1]->fua);
  engine_->complete(512);
  engine_->complete(512);
  EXPECT_EQ(write.result, 0);
}

TEST_F(RawZeroesTest, WithFuaTheyAreDoneAfterAFlush) {
  Probe zeroes(BlockOp::kWriteZeroes, 0, 4096);
  zeroes.request.fua = true;
  submit(zeroes);
  engine_->complete(0);
  EXPECT_EQ(zeroes.completions, 0u);
  ASSERT_EQ(engine_->pending.size(), 1u);
  EXPECT_EQ(engine_->pending[0]->op, IoOp::kFlush);
  engine_->complete(0);
  EXPECT_EQ(zeroes.result, 0);
}

TEST_F(RawZeroesTest, WhatTheFileSystemRefusesIsWrittenOutInBoundedPieces) {
  Probe zeroes(BlockOp::kWriteZeroes, 512, 512 * 1024);
  zeroes.request.may_unmap = true;
  submit(zeroes);
  EXPECT_EQ(engine_->pending[0]->op, IoOp::kDiscard);
  engine_->complete(-EOPNOTSUPP);
  ASSERT_EQ(engine_->pending.size(), 1u);
  EXPECT_EQ(engine_->pending[0]->op, IoOp::kWriteZeroes);
  engine_->complete(-EOPNOTSUPP);
  uint64_t written = 0;
  while (!engine_->pending.empty()) {
    const IoRequest& io = *engine_->pending[0];
    ASSERT_EQ(io.op, IoOp::kWrite);
    ASSERT_EQ(io.offset_bytes, 512 + written);
    ASSERT_LE(io.length_bytes, 1u << 20);
    uint64_t sum = 0;
    for (const iovec& segment : io.iov) {
      const std::span bytes(static_cast<const std::byte*>(segment.iov_base), segment.iov_len);
      EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; }));
      sum += segment.iov_len;
    }
    ASSERT_EQ(sum, io.length_bytes);
    written += io.length_bytes;
    engine_->complete(static_cast<int32_t>(io.length_bytes));
  }
  EXPECT_EQ(written, 512u * 1024);
  EXPECT_EQ(zeroes.result, 0);

  // What was refused once is not asked for again.
  Probe later(BlockOp::kWriteZeroes, 0, 512);
  submit(later);
  EXPECT_EQ(engine_->pending[0]->op, IoOp::kWrite);
  engine_->complete(-ENOSPC);
  EXPECT_EQ(later.result, -ENOSPC);
  Probe no_fallback(BlockOp::kWriteZeroes, 0, 512);
  no_fallback.request.no_fallback = true;
  EXPECT_EQ(run(no_fallback), -EOPNOTSUPP);
}

TEST_F(RawZeroesTest, WithoutFallbackARefusalComesBack) {
  Probe zeroes(BlockOp::kWriteZeroes, 0, 4096);
  zeroes.request.no_fallback = true;
  submit(zeroes);
  engine_->complete(-EOPNOTSUPP);
  finish();
  EXPECT_EQ(zeroes.result, -EOPNOTSUPP);
}

TEST_F(RawZeroesTest, DiscardThatTurnsOutToBeImpossibleIsDone) {
  Probe first(BlockOp::kDiscard, 0, 4096);
  submit(first);
  engine_->complete(-EOPNOTSUPP);
  EXPECT_EQ(first.result, 0);
  Probe second(BlockOp::kDiscard, 0, 4096);
  EXPECT_EQ(run(second), 0);
  EXPECT_EQ(engine_->submitted, 1u);
  Probe broken(BlockOp::kDiscard, kDiskBytes, 4096);
  EXPECT_EQ(run(broken), -EINVAL);
}

TEST_F(RawChannelTest, ZeroesWrittenOutOn4KBlocksLeaveTheNeighboursAlone) {
  auto content = pattern(kDiskBytes);
  open({.path = dir_.make_file("disk.img", content), .alignment_bytes_min = 4096});
  image_->note_cannot(IoOp::kDiscard);
  image_->note_cannot(IoOp::kWriteZeroes);
  Probe zeroes(BlockOp::kWriteZeroes, 3 * 512, 300 * 512);
  zeroes.request.fua = true;
  EXPECT_EQ(run(zeroes), 0);
  std::fill_n(content.begin() + 3 * 512, 300 * 512, std::byte{0});
  EXPECT_EQ(dir_.read_file("disk.img"), content);
}

TEST_F(RawChannelTest, FuaWriteIsThere) {
  open();
  auto out = pattern(4096);
  Probe write(BlockOp::kWrite, 4096, out);
  write.request.fua = true;
  EXPECT_EQ(run(write), 0);
  std::vector<std::byte> in(4096);
  EXPECT_EQ(run(BlockOp::kRead, 4096, in), 0);
  EXPECT_EQ(in, out);
}

class RawStatusTest : public RawChannelTest {
 protected:
  BlockStatus status(uint64_t offset_bytes, uint64_t length_bytes) {
    Probe probe(BlockOp::kStatus, offset_bytes, length_bytes);
    EXPECT_EQ(run(probe), 0);
    return probe.request.status;
  }
};

TEST_F(RawStatusTest, HolesAndDataAreToldApart) {
  open();
  auto out = pattern(64 * 1024);
  ASSERT_EQ(run(BlockOp::kWrite, 256 * 1024, out), 0);
  const BlockStatus hole = status(0, kDiskBytes);
  if (hole.allocated) GTEST_SKIP() << "this file system has no holes";
  EXPECT_TRUE(hole.reads_as_zeroes);
  EXPECT_EQ(hole.length_bytes, 256u * 1024);
  const BlockStatus data = status(256 * 1024, kDiskBytes - 256 * 1024);
  EXPECT_TRUE(data.allocated);
  EXPECT_FALSE(data.reads_as_zeroes);
  EXPECT_EQ(data.length_bytes, 64u * 1024);
  const BlockStatus tail = status(320 * 1024, kDiskBytes - 320 * 1024);
  EXPECT_FALSE(tail.allocated);
  EXPECT_EQ(tail.length_bytes, kDiskBytes - 320 * 1024);
  // Never more than was asked for.
  EXPECT_EQ(status(0, 512).length_bytes, 512u);
  EXPECT_EQ(status(256 * 1024, 1024).length_bytes, 1024u);
  EXPECT_EQ(status(0, 0).length_bytes, 0u);
}

TEST_F(RawStatusTest, BehindTheEndOfAFileThatShrankNothingIsPromised) {
  open();
  ASSERT_EQ(::truncate(dir_.path("disk.img").c_str(), 4096), 0);
  EXPECT_FALSE(status(65536, 4096).reads_as_zeroes);
  EXPECT_LE(status(0, 65536).length_bytes, 4096u);
}

TEST_F(RawStatusTest, RangesAreCheckedAsForReads) {
  open({.path = dir_.make_sparse("disk.img", kDiskBytes), .access = WriteAccess::kReadOnly});
  Probe outside(BlockOp::kStatus, kDiskBytes, 512);
  EXPECT_EQ(run(outside), -EINVAL);
  Probe unaligned(BlockOp::kStatus, 1, 512);
  EXPECT_EQ(run(unaligned), -EINVAL);
  EXPECT_EQ(status(0, 512).length_bytes, 512u);  // A read-only image can be asked.
}

}  // namespace
}  // namespace skiff::block
