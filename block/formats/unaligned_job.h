// SPDX-License-Identifier: GPL-2.0-or-later
// UnalignedJob: the detour of a request that O_DIRECT would refuse, or that must wait its turn.
//
// Bytes go through an aligned buffer, a piece at a time; a write that covers only a part of a
// device block reads the block first. On such devices every change of the image holds its range.
// This path allocates; the usual one does not come here. Thread: the channel's loop. Ownership:
// owns itself from start() until the request is finished.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "block/aligned_buffer.h"
#include "block/block_channel.h"
#include "block/range_lock.h"

namespace skiff::block {

class RawChannel;

class UnalignedJob {
 public:
  static bool buffers_are_aligned(std::span<const iovec> iov, uint32_t alignment_bytes);
  // `request` is in range, a read, a write, a discard or zeroes that the kernel writes; what it is
  // for the engine stands in its `in_flight.io.op`.
  static void start(RawChannel& channel, BlockRequest& request);

 private:
  enum class Step : uint8_t { kWhole, kReadForGuest, kReadEdges, kWrite };

  UnalignedJob(RawChannel& channel, BlockRequest& request);
  static void on_io_done(IoRequest& io, int32_t result);
  void run();
  void next_piece();
  void submit_whole();
  void submit_piece(Step step);
  void step_done(int32_t result);
  void finish(int32_t result);

  RawChannel& channel_;
  BlockRequest& request_;
  const uint64_t alignment_bytes_;
  RangeLocks::Range range_;
  bool locked_ = false;

  Step step_ = Step::kWhole;
  uint64_t done_bytes_ = 0;
  // The present piece: request bytes, and the aligned bytes around them.
  uint64_t piece_bytes_ = 0;
  uint64_t piece_begin_ = 0;
  uint64_t piece_end_ = 0;
  AlignedBuffer buffer_;
  iovec iov_ = {};
  IoRequest io_;
};

}  // namespace skiff::block
