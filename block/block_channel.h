// SPDX-License-Identifier: GPL-2.0-or-later
// BlockBackend and BlockChannel: an image, and one event loop's use of it.
//
// The backend is the control plane: size, limits, locking. A channel is the data plane: requests go
// in on its loop and complete on its loop. Thread: BlockBackend on the main loop (its const facts
// from any, open_channel() where the channel will live); BlockChannel on its home loop throughout.
// Ownership: the backend outlives its channels.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "block/block_limits.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::block {

enum class BlockOp : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes, kStatus };

constexpr std::string_view block_op_name(BlockOp op) {
  switch (op) {
    case BlockOp::kRead:
      return "read";
    case BlockOp::kWrite:
      return "write";
    case BlockOp::kFlush:
      return "flush";
    case BlockOp::kDiscard:
      return "discard";
    case BlockOp::kWriteZeroes:
      return "write-zeroes";
    case BlockOp::kStatus:
      break;
  }
  return "status";
}

class BlockChannel;
struct AdaptiveCounters;
struct BlockRequest;
struct FaultRules;

// What a channel keeps with a request, so that a request allocates nothing. Nobody else touches it.
struct BlockInFlight {
  BlockChannel* channel = nullptr;
  BlockRequest* next = nullptr;
  int32_t result = 0;
  IoRequest io;
};

// What kStatus says of the beginning of the range that was asked about.
struct BlockStatus {
  uint64_t length_bytes = 0;  // How far it goes: at least 512 bytes, at most what was asked for.
  bool reads_as_zeroes = false;
  bool allocated = true;  // Takes room in the image.
};

// One request. The submitter owns it: request and memory stay in place until `done` runs.
struct BlockRequest {
  BlockOp op = BlockOp::kRead;
  bool may_unmap = false;           // kWriteZeroes: the zeroes need no room in the image.
  bool no_fallback = false;         // kWriteZeroes: -EOPNOTSUPP rather than writing zeroes out.
  bool fua = false;                 // kWrite, kWriteZeroes: on stable storage before it completes.
  uint64_t offset_bytes = 0;        // Offset and length are multiples of 512.
  uint64_t length_bytes = 0;        // Equals the sum of `iov` for kRead and kWrite.
  std::span<const iovec> iov = {};  // kRead and kWrite only.
  BlockStatus status = {};          // The answer to kStatus.
  // 0, or -errno. A request is done whole or failed: short transfers are finished below, a read
  // past the end of a file that shrank fails with -EIO.
  void (*done)(BlockRequest& request, int32_t result) = nullptr;
  void* owner = nullptr;
  BlockInFlight in_flight = {};
};

class BlockChannel {
 public:
  virtual ~BlockChannel() = default;
  // Takes the whole batch. Out-of-range, unaligned and oversized requests complete with -EINVAL,
  // writes to a read-only image with -EROFS, what limits() rules out with -EOPNOTSUPP, flushes
  // after one that failed with -EIO. A discard that turns out to be impossible is done: it is a
  // right, not a duty. A completion never runs inside submit(): callers may be half-way through an
  // update there.
  virtual void submit(std::span<BlockRequest* const> batch) = 0;
  virtual uint32_t in_flight() const = 0;
  // Lets go, in a later turn, what is held back on purpose (for a rate, for an injected delay), so
  // that whoever waits for the channel to be empty need not wait for that.
  virtual void hurry() {}
  // What an engine that chooses has chosen; null with any other. Any thread.
  virtual const AdaptiveCounters* adaptive_counters() const { return nullptr; }
};

// The most that one read or write may move.
inline constexpr uint64_t kMaxTransferBytes = uint64_t{1} << 30;

constexpr bool is_transfer(BlockOp op) { return op == BlockOp::kRead || op == BlockOp::kWrite; }

// Of a request with a range: -EINVAL when it is unaligned, out of a disk of this size, or too
// large; else 0.
int32_t check_range(const BlockRequest& request, uint64_t size_bytes);

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;
  virtual uint64_t size_bytes() const = 0;
  virtual bool is_read_only() const = 0;
  virtual const BlockLimits& limits() const = 0;
  virtual const std::string& name() const = 0;  // For messages: the path.
  virtual loop::Result<std::unique_ptr<BlockChannel>> open_channel(loop::EventLoop& loop) = 0;
  // Grows or shrinks the image; nothing stands for "as large as the file is by now". Writes and
  // flushes nothing. kUnsupported where that is not possible. Thread: main loop, drained.
  virtual loop::Result<void> resize(std::optional<uint64_t> size_bytes);
  // Replaces the faults that are injected. kUnsupported where there is no FaultyImage. Thread: any.
  virtual loop::Result<void> set_faults(FaultRules rules);
};

}  // namespace skiff::block
