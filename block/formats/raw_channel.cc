// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/raw_channel.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "block/block_channel.h"
#include "block/formats/raw_image.h"
#include "block/formats/unaligned_job.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"

namespace skiff::block {
namespace {

constexpr uint64_t kSectorBytes = 512;

bool is_transfer(BlockOp op) { return op == BlockOp::kRead || op == BlockOp::kWrite; }

}  // namespace

RawChannel::RawChannel(RawImage& image, loop::EventLoop& loop, std::unique_ptr<IoEngine> engine)
    : home_(loop),
      image_(image),
      engine_(std::move(engine)),
      finished_bh_(loop, loop::Priority::kCompletion, [this] { run_finished(); }) {}

RawChannel::~RawChannel() { SKIFF_CHECK(in_flight_ == 0); }

void RawChannel::submit(std::span<BlockRequest* const> batch) {
  home_.assert_here();
  for (BlockRequest* request : batch) start(*request);
  if (batch_.empty()) return;
  engine_->submit(batch_);
  batch_.clear();
}

void RawChannel::start(BlockRequest& request) {
  ++in_flight_;
  request.in_flight.channel = this;
  const int32_t refusal = check(request);
  if (refusal != 0) return finish_later(request, refusal);
  if (request.op != BlockOp::kFlush && request.length_bytes == 0) return finish_later(request, 0);
  if (needs_detour(request)) return UnalignedJob::start(*this, request);

  IoRequest& io = request.in_flight.io;
  io.op = io_op(request);
  io.offset_bytes = request.offset_bytes;
  io.length_bytes = request.length_bytes;
  io.iov = request.iov;
  io.done = &RawChannel::on_io_done;
  io.owner = &request;
  batch_.push_back(&io);
}

IoOp RawChannel::io_op(const BlockRequest& request) const {
  switch (request.op) {
    case BlockOp::kRead:
      return IoOp::kRead;
    case BlockOp::kWrite:
      return IoOp::kWrite;
    case BlockOp::kFlush:
    case BlockOp::kStatus:
      return IoOp::kFlush;
    case BlockOp::kDiscard:
      return IoOp::kDiscard;
    case BlockOp::kWriteZeroes:
      // A hole reads back as zeroes, so a discard does it where room may be given back.
      return request.may_unmap && image_.limits().discard ? IoOp::kDiscard : IoOp::kWriteZeroes;
  }
  return IoOp::kFlush;
}

int32_t RawChannel::check(const BlockRequest& request) const {
  if (request.op == BlockOp::kFlush) return image_.writes_lost() ? -EIO : 0;
  if (request.op == BlockOp::kStatus) return -EOPNOTSUPP;
  if (request.op != BlockOp::kRead && image_.is_read_only()) return -EROFS;
  const BlockLimits& limits = image_.limits();
  if (request.op == BlockOp::kDiscard && !limits.discard) return -EOPNOTSUPP;
  if (request.op == BlockOp::kWriteZeroes && !limits.write_zeroes) return -EOPNOTSUPP;
  if (request.offset_bytes % kSectorBytes != 0 || request.length_bytes % kSectorBytes != 0)
    return -EINVAL;
  // In this order nothing wraps.
  const uint64_t size_bytes = image_.size_bytes();
  if (request.offset_bytes > size_bytes) return -EINVAL;
  if (request.length_bytes > size_bytes - request.offset_bytes) return -EINVAL;
  if (is_transfer(request.op) && request.length_bytes > kMaxTransferBytes) return -EINVAL;
  return 0;
}

bool RawChannel::needs_detour(const BlockRequest& request) const {
  const BlockLimits& limits = image_.limits();
  if (request.op == BlockOp::kFlush) return false;
  // Where anybody's write may be a read-modify-write, everybody's takes its turn.
  if (limits.alignment_bytes > kSectorBytes && request.op != BlockOp::kRead) return true;
  if (!is_transfer(request.op)) return false;
  if ((request.offset_bytes | request.length_bytes) % limits.alignment_bytes != 0) return true;
  if (limits.memory_alignment_bytes == 1) return false;
  return !UnalignedJob::buffers_are_aligned(request.iov, limits.memory_alignment_bytes);
}

void RawChannel::on_io_done(IoRequest& io, int32_t result) {
  auto& request = *static_cast<BlockRequest*>(io.owner);
  static_cast<RawChannel*>(request.in_flight.channel)->finish(request, result);
}

void RawChannel::finish(BlockRequest& request, int32_t result) {
  home_.assert_here();
  if (result >= 0 && is_transfer(request.op)) {
    const bool whole = static_cast<uint64_t>(result) == request.length_bytes;
    if (!whole) {
      SKIFF_LOG_LIMITED(kError,
                        "Disk {}: a read of {} bytes at {} met the end of the file; it was cut "
                        "short while in use",
                        image_.name(), request.length_bytes, request.offset_bytes);
    }
    result = whole ? 0 : -EIO;
  } else if (result < 0) {
    SKIFF_LOG_LIMITED(
        kError, "Disk {}: {}", image_.name(),
        loop::Error::from_errno(-result, fmt::format("request of {} bytes at {}",
                                                     request.length_bytes, request.offset_bytes))
            .message());
    if (request.op == BlockOp::kFlush) image_.note_writes_lost();
  }
  --in_flight_;
  request.done(request, result);
}

void RawChannel::finish_later(BlockRequest& request, int32_t result) {
  request.in_flight.result = result;
  request.in_flight.next = nullptr;
  if (finished_first_ == nullptr)
    finished_first_ = &request;
  else
    finished_last_->in_flight.next = &request;
  finished_last_ = &request;
  finished_bh_.schedule();
}

void RawChannel::run_finished() {
  home_.assert_here();
  BlockRequest* request = std::exchange(finished_first_, nullptr);
  finished_last_ = nullptr;
  while (request != nullptr) {
    // Its owner may reuse it at once.
    BlockRequest* next = request->in_flight.next;
    --in_flight_;
    request->done(*request, request->in_flight.result);
    request = next;
  }
}

}  // namespace skiff::block
