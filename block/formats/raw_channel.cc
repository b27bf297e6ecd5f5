// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/raw_channel.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "block/block_channel.h"
#include "block/block_limits.h"
#include "block/formats/flush_coalescer.h"
#include "block/formats/raw_image.h"
#include "block/formats/status_job.h"
#include "block/formats/unaligned_job.h"
#include "block/formats/zero_fill.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

// The file system or the device does not know the operation.
bool is_refusal(int32_t result) { return result == -EOPNOTSUPP || result == -ENOSYS; }

}  // namespace

RawChannel::RawChannel(RawImage& image, loop::EventLoop& loop, std::unique_ptr<IoEngine> engine)
    : home_(loop),
      image_(image),
      engine_(std::move(engine)),
      flushes_(*this),
      finished_bh_(loop, loop::Priority::kCompletion, [this] { run_finished(); }) {}

RawChannel::~RawChannel() { SKIFF_CHECK(in_flight_ == 0); }

void RawChannel::submit(std::span<BlockRequest* const> batch) {
  home_.assert_here();
  for (BlockRequest* request : batch) start(*request);
  send();
}

void RawChannel::send() {
  if (batch_.empty()) return;
  engine_->submit(batch_);
  batch_.clear();
  flushes_.seal();
}

void RawChannel::start(BlockRequest& request) {
  ++in_flight_;
  request.in_flight.channel = this;
  const int32_t refusal = check(request);
  if (refusal != 0) return finish_later(request, refusal);
  if (request.op == BlockOp::kFlush) return flushes_.add(request);
  if (request.op == BlockOp::kStatus) request.status = {.length_bytes = request.length_bytes};
  if (request.length_bytes == 0) return finish_later(request, 0);
  // Nothing is known about what a device without a file holds.
  if (request.op == BlockOp::kStatus && image_.target().null != nullptr)
    return finish_later(request, 0);
  if (request.op == BlockOp::kStatus) return StatusJob::start(*this, request);
  // The right to give back room that is not needed is no duty.
  if (request.op == BlockOp::kDiscard && !image_.can_discard()) return finish_later(request, 0);
  carry_out(request);
}

void RawChannel::carry_out(BlockRequest& request) {
  const std::optional<IoOp> op = io_op(request);
  if (!op && request.no_fallback) return finish_later(request, -EOPNOTSUPP);
  if (!op) return ZeroFill::start(*this, request);
  IoRequest& io = request.in_flight.io;
  io.op = *op;
  if (needs_detour(request)) return UnalignedJob::start(*this, request);
  io.fua = request.op == BlockOp::kWrite && request.fua;
  io.offset_bytes = request.offset_bytes;
  io.length_bytes = request.length_bytes;
  io.iov = request.iov;
  io.done = &RawChannel::on_io_done;
  io.owner = &request;
  batch_.push_back(&io);
}

std::optional<IoOp> RawChannel::io_op(const BlockRequest& request) const {
  switch (request.op) {
    case BlockOp::kRead:
      return IoOp::kRead;
    case BlockOp::kWrite:
      return IoOp::kWrite;
    case BlockOp::kDiscard:
      return IoOp::kDiscard;
    case BlockOp::kWriteZeroes:
      // A hole reads back as zeroes, so a discard does it where room may be given back.
      if (request.may_unmap && image_.can_discard()) return IoOp::kDiscard;
      if (image_.can_write_zeroes()) return IoOp::kWriteZeroes;
      return std::nullopt;
    case BlockOp::kFlush:
    case BlockOp::kStatus:
      break;
  }
  SKIFF_CHECK(false);
  return std::nullopt;
}

int32_t RawChannel::check(const BlockRequest& request) const {
  if (request.op == BlockOp::kFlush) return image_.writes_lost() ? -EIO : 0;
  const bool changes = request.op != BlockOp::kRead && request.op != BlockOp::kStatus;
  if (changes && image_.is_read_only()) return -EROFS;
  if (request.op == BlockOp::kDiscard && !image_.limits().discard) return -EOPNOTSUPP;
  return check_range(request, image_.size_bytes());
}

bool RawChannel::needs_detour(const BlockRequest& request) const {
  const BlockLimits& limits = image_.limits();
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
  if (is_refusal(result) && request.op == BlockOp::kWriteZeroes) {
    image_.note_cannot(request.in_flight.io.op);
    carry_out(request);
    return send();
  }
  if (is_refusal(result) && request.op == BlockOp::kDiscard) {
    image_.note_cannot(IoOp::kDiscard);
    result = 0;
  }
  if (result < 0)
    log_failure(request, result);
  else if (is_transfer(request.op))
    result = check_transfer(request, result);
  if (result == 0 && request.op == BlockOp::kWriteZeroes && request.fua) {
    if (image_.writes_lost()) return end(request, -EIO);
    flushes_.add(request);
    return send();
  }
  end(request, result);
}

void RawChannel::end(BlockRequest& request, int32_t result) {
  --in_flight_;
  request.done(request, result);
}

int32_t RawChannel::check_transfer(const BlockRequest& request, int32_t result) const {
  if (static_cast<uint64_t>(result) == request.length_bytes) return 0;
  SKIFF_LOG_LIMITED(kError,
                    "Disk {}: a read of {} bytes at {} met the end of the file; it was cut short "
                    "while in use",
                    image_.name(), request.length_bytes, request.offset_bytes);
  return -EIO;
}

void RawChannel::log_failure(const BlockRequest& request, int32_t result) const {
  SKIFF_LOG_LIMITED(kError, "Disk {}: {}", image_.name(),
                    loop::Error::from_errno(
                        -result, fmt::format("{} of {} bytes at {}", block_op_name(request.op),
                                             request.length_bytes, request.offset_bytes))
                        .message());
}

void RawChannel::collect_flush(IoRequest& io) {
  home_.assert_here();
  batch_.push_back(&io);
}

void RawChannel::send_collected() {
  home_.assert_here();
  send();
}

void RawChannel::flush_failed(int32_t result) {
  image_.note_writes_lost();
  SKIFF_LOG_LIMITED(kError,
                    "Disk {}: {}; writes since the last flush may be lost, and all later flushes "
                    "fail until it is opened again",
                    image_.name(), loop::Error::from_errno(-result, "Flush").message());
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
