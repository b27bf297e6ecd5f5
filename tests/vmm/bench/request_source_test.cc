// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/request_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "block/block_channel.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/rate_pacer.h"

namespace skiff::vmm {
namespace {

using block::BlockOp;

constexpr uint64_t kBlock = 4096;

TEST(RequestSource, InSequenceGoesThroughItsPartAndBeginsAgain) {
  RequestSource source(AccessPattern::kWrite, kBlock, {10, 3}, 1);
  std::vector<uint64_t> blocks;
  for (int i = 0; i < 7; ++i) {
    const auto next = source.next();
    EXPECT_EQ(next.op, BlockOp::kWrite);
    blocks.push_back(next.offset_bytes / kBlock);
  }
  EXPECT_THAT(blocks, ::testing::ElementsAre(10, 11, 12, 10, 11, 12, 10));
}

TEST(RequestSource, AtRandomEachBlockIsAsLikelyAsAnyOther) {
  constexpr uint64_t kBlocks = 7;  // No power of two.
  RequestSource source(AccessPattern::kRandRead, kBlock, {2, kBlocks}, 3);
  std::vector<int> hits(kBlocks);
  for (int i = 0; i < 70'000; ++i) {
    const auto next = source.next();
    ASSERT_EQ(next.op, BlockOp::kRead);
    ASSERT_EQ(next.offset_bytes % kBlock, 0u);
    hits.at(next.offset_bytes / kBlock - 2)++;
  }
  // Five times the standard deviation of 92.
  for (const int count : hits) EXPECT_NEAR(count, 10'000, 460);
}

TEST(RequestSource, AMixIsHalfReadsAndHalfWritesWhateverTheBlock) {
  RequestSource source(AccessPattern::kRandRw, kBlock, {0, 2}, 5);
  int reads[2] = {};
  int all[2] = {};
  for (int i = 0; i < 40'000; ++i) {
    const auto next = source.next();
    const size_t block = next.offset_bytes / kBlock;
    ++all[block];
    if (next.op == BlockOp::kRead) ++reads[block];
  }
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(reads[i], all[i] / 2.0, 500);
}

TEST(RequestSource, JobsInSequenceHavePartsOfTheirOwn) {
  uint64_t end = 0;
  for (uint32_t job = 0; job < 3; ++job) {
    const auto part = RequestSource::part_of_job(AccessPattern::kRead, 100, job, 3);
    EXPECT_EQ(part.first_block, end);
    EXPECT_EQ(part.block_count, 33u);
    end = part.first_block + part.block_count;
  }
  EXPECT_LE(end, 100u);
  // Fewer blocks than jobs: they share.
  EXPECT_EQ(RequestSource::part_of_job(AccessPattern::kRead, 2, 2, 3).block_count, 2u);
  EXPECT_EQ(RequestSource::part_of_job(AccessPattern::kRandRead, 100, 2, 3).block_count, 100u);
}

TEST(RatePacer, LosesNothingToRounding) {
  RatePacer pacer(7, 1'000'000'000, 100);
  EXPECT_EQ(pacer.next_ns(), 100);
  for (int i = 0; i < 7 * 1000; ++i) pacer.take();
  EXPECT_EQ(pacer.next_ns(), 100 + int64_t{1'000'000'000} * 1000);
}

TEST(RatePacer, KnowsHowManyWereMissed) {
  RatePacer pacer(10, 1'000'000'000, 0);  // At 0, 100 ms, 200 ms, ...
  EXPECT_EQ(pacer.missed_before(0), 0u);
  EXPECT_EQ(pacer.missed_before(1), 1u);
  EXPECT_EQ(pacer.missed_before(100'000'000), 1u);
  EXPECT_EQ(pacer.missed_before(1'000'000'000), 10u);
  pacer.take();
  EXPECT_EQ(pacer.missed_before(1'000'000'000), 9u);
}

}  // namespace
}  // namespace skiff::vmm
