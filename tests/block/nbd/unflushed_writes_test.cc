// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/unflushed_writes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

struct Written {
  Written(uint64_t offset_bytes, size_t size_bytes) : bytes(pattern(size_bytes)) {
    iov = {iovec{bytes.data(), size_bytes / 2},
           iovec{bytes.data() + size_bytes / 2, size_bytes - size_bytes / 2}};
    request.op = BlockOp::kWrite;
    request.offset_bytes = offset_bytes;
    request.length_bytes = size_bytes;
    request.iov = iov;
  }
  Written(const Written&) = delete;
  Written& operator=(const Written&) = delete;
  std::vector<std::byte> bytes;
  std::array<iovec, 2> iov;
  BlockRequest request;
};

TEST(UnflushedWrites, KeepsCopiesInTheOrderOfTheirAcknowledgement) {
  UnflushedWrites writes;
  Written first(4096, 1024);
  Written second(0, 512);
  writes.add(first.request);
  writes.add(second.request);
  const auto expected = first.bytes;
  std::ranges::fill(first.bytes, std::byte{0});
  ASSERT_EQ(writes.count(), 2u);
  EXPECT_EQ(writes.at(0).offset_bytes, 4096u);
  EXPECT_TRUE(std::ranges::equal(std::span(writes.at(0).bytes.get(), 1024), expected));
  EXPECT_EQ(writes.at(1).offset_bytes, 0u);
}

TEST(UnflushedWrites, FlushForgetsOnlyWhatCameBeforeIt) {
  UnflushedWrites writes;
  Written write(0, 512);
  writes.add(write.request);
  const uint64_t mark = writes.mark();
  writes.add(write.request);
  writes.flushed(mark);
  EXPECT_EQ(writes.count(), 1u);
  writes.flushed(mark);
  EXPECT_EQ(writes.count(), 1u);
  writes.flushed(writes.mark());
  EXPECT_EQ(writes.count(), 0u);
}

TEST(UnflushedWrites, AsksForAFlushBeforeItIsFull) {
  UnflushedWrites writes({.wish_flush_bytes = 4096, .full_bytes = 8192});
  Written write(0, 3000);
  EXPECT_FALSE(writes.add(write.request));
  EXPECT_TRUE(writes.add(write.request));
  EXPECT_FALSE(writes.full());
  writes.add(write.request);
  EXPECT_TRUE(writes.full());
  writes.flushed(writes.mark());
  EXPECT_FALSE(writes.full());
  EXPECT_FALSE(writes.add(write.request));
}

TEST(UnflushedWrites, RangesWithoutBytesAreKeptAsRanges) {
  UnflushedWrites writes;
  BlockRequest discard;
  discard.op = BlockOp::kDiscard;
  discard.offset_bytes = 512;
  discard.length_bytes = uint64_t{1} << 40;
  EXPECT_FALSE(writes.add(discard)) << "no memory is needed for it";
  ASSERT_EQ(writes.count(), 1u);
  EXPECT_EQ(writes.at(0).op, BlockOp::kDiscard);
  EXPECT_EQ(writes.at(0).length_bytes, uint64_t{1} << 40);
}

TEST(UnflushedWrites, WhatIsGivenUpStaysLost) {
  UnflushedWrites writes;
  Written write(0, 512);
  writes.add(write.request);
  writes.give_up();
  EXPECT_TRUE(writes.writes_lost());
  EXPECT_EQ(writes.count(), 0u);
  writes.add(write.request);
  EXPECT_EQ(writes.count(), 0u);
}

TEST(UnflushedWrites, KeepsNothingWhereNothingIsEverFlushed) {
  UnflushedWrites writes;
  writes.set_enabled(false);
  Written write(0, 512);
  EXPECT_FALSE(writes.add(write.request));
  EXPECT_EQ(writes.count(), 0u);
}

}  // namespace
}  // namespace skiff::block
