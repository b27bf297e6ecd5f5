// SPDX-License-Identifier: GPL-2.0-or-later
// RequestSource: which request a job of the benchmark sends next.
//
// Blocks are aligned to their own size. In sequence from the beginning of the job's part, and from
// there again at its end; or at random, each block as likely as any other. Thread: one at a time.
// Ownership: a value type.
#pragma once

#include <cstdint>

#include "block/block_channel.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

class RequestSource {
 public:
  struct Next {
    block::BlockOp op;
    uint64_t offset_bytes;
  };

  // `block_count` blocks from block `first_block` on, at least one.
  struct Part {
    uint64_t first_block = 0;
    uint64_t block_count = 1;
  };
  // What job `job` of `jobs` works on, of `blocks` blocks: sequential jobs have a part of their own
  // each, as long as there are enough blocks; random ones share everything.
  static Part part_of_job(AccessPattern pattern, uint64_t blocks, uint32_t job, uint32_t jobs);

  RequestSource(AccessPattern pattern, uint64_t block_bytes, Part part, uint64_t seed)
      : pattern_(pattern), block_bytes_(block_bytes), part_(part), state_(seed) {}

  Next next();

 private:
  uint64_t random();

  AccessPattern pattern_;
  uint64_t block_bytes_;
  Part part_;
  uint64_t state_;
  uint64_t sequential_ = 0;
};

}  // namespace skiff::vmm
