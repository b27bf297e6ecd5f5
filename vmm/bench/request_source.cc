// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/request_source.h"

#include <cstdint>

#include "block/block_channel.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

using block::BlockOp;

RequestSource::Part RequestSource::part_of_job(AccessPattern pattern, uint64_t blocks, uint32_t job,
                                               uint32_t jobs) {
  if (is_random(pattern) || blocks < jobs) return {0, blocks};
  const uint64_t each = blocks / jobs;
  return {job * each, each};
}

// SplitMix64: one addition and three multiplications, and good enough to spread requests.
uint64_t RequestSource::random() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t value = state_;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

RequestSource::Next RequestSource::next() {
  if (!is_random(pattern_)) {
    const uint64_t block = part_.first_block + sequential_;
    if (++sequential_ == part_.block_count) sequential_ = 0;
    const BlockOp op = pattern_ == AccessPattern::kRead ? BlockOp::kRead : BlockOp::kWrite;
    return {op, block * block_bytes_};
  }
  const uint64_t number = random();
  // The high half of a product instead of a division: 2^64 is so much larger than any number of
  // blocks that no block is noticeably likelier than another.
  __extension__ using Wide = unsigned __int128;
  const auto block = static_cast<uint64_t>((Wide{number} * part_.block_count) >> 64);
  BlockOp op = pattern_ == AccessPattern::kRandRead ? BlockOp::kRead : BlockOp::kWrite;
  // The lowest bit has no part in the choice of the block.
  if (pattern_ == AccessPattern::kRandRw && (number & 1) != 0) op = BlockOp::kRead;
  return {op, (part_.first_block + block) * block_bytes_};
}

}  // namespace skiff::vmm
