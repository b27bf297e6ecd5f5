// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/unaligned_job.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "block/block_channel.h"
#include "block/formats/raw_channel.h"
#include "block/iovec_copy.h"
#include "block/request_fixup.h"

namespace skiff::block {
namespace {

// Bounds the memory that many such requests take together.
constexpr uint64_t kPieceBytes = 256 * 1024;

uint64_t round_down(uint64_t value, uint64_t alignment) { return value - value % alignment; }
uint64_t round_up(uint64_t value, uint64_t alignment) {
  return round_down(value + alignment - 1, alignment);
}

}  // namespace

bool UnalignedJob::buffers_are_aligned(std::span<const iovec> iov, uint32_t alignment_bytes) {
  return std::ranges::all_of(iov, [alignment_bytes](const iovec& segment) {
    const auto address = reinterpret_cast<uintptr_t>(segment.iov_base);
    return (address | segment.iov_len) % alignment_bytes == 0;
  });
}

void UnalignedJob::start(RawChannel& channel, BlockRequest& request) {
  // Owns itself: the request has no room for what only this path needs. finish() deletes.
  auto* job = new UnalignedJob(channel, request);
  if (request.op == BlockOp::kRead) return job->run();
  job->locked_ = true;
  if (channel.image().write_locks().acquire(job->range_)) job->run();
}

UnalignedJob::UnalignedJob(RawChannel& channel, BlockRequest& request)
    : channel_(channel),
      request_(request),
      alignment_bytes_(channel.image().limits().alignment_bytes) {
  range_.begin_bytes = round_down(request.offset_bytes, alignment_bytes_);
  range_.end_bytes = round_up(request.offset_bytes + request.length_bytes, alignment_bytes_);
  range_.home = &channel.loop();
  range_.owner = this;
  range_.granted = [](RangeLocks::Range& range) { static_cast<UnalignedJob*>(range.owner)->run(); };
}

void UnalignedJob::run() {
  const BlockLimits& limits = channel_.image().limits();
  const bool transfer = request_.op == BlockOp::kRead || request_.op == BlockOp::kWrite;
  const bool aligned = (request_.offset_bytes | request_.length_bytes) % alignment_bytes_ == 0 &&
                       buffers_are_aligned(request_.iov, limits.memory_alignment_bytes);
  if (!transfer || aligned) return submit_whole();
  buffer_ = AlignedBuffer(
      std::min(kPieceBytes, request_.length_bytes) + 2 * alignment_bytes_,
      std::max<size_t>({limits.memory_alignment_bytes, alignof(std::max_align_t), 512}));
  next_piece();
}

void UnalignedJob::submit_whole() {
  step_ = Step::kWhole;
  io_.op = request_.in_flight.io.op;
  io_.fua = request_.op == BlockOp::kWrite && request_.fua;
  io_.offset_bytes = request_.offset_bytes;
  io_.length_bytes = request_.length_bytes;
  io_.iov = request_.iov;
  io_.done = &UnalignedJob::on_io_done;
  io_.owner = this;
  IoRequest* one = &io_;
  channel_.engine().submit({&one, 1});
}

void UnalignedJob::next_piece() {
  if (done_bytes_ == request_.length_bytes) return finish(static_cast<int32_t>(done_bytes_));
  const uint64_t begin = request_.offset_bytes + done_bytes_;
  piece_bytes_ = std::min(kPieceBytes, request_.length_bytes - done_bytes_);
  piece_begin_ = round_down(begin, alignment_bytes_);
  piece_end_ = round_up(begin + piece_bytes_, alignment_bytes_);
  if (request_.op == BlockOp::kRead) return submit_piece(Step::kReadForGuest);
  const bool covers_blocks = piece_begin_ == begin && piece_end_ == begin + piece_bytes_;
  if (!covers_blocks) return submit_piece(Step::kReadEdges);
  copy_from_iovec(request_.iov, done_bytes_, buffer_.bytes().first(piece_bytes_));
  submit_piece(Step::kWrite);
}

void UnalignedJob::submit_piece(Step step) {
  step_ = step;
  iov_ = {.iov_base = buffer_.data(), .iov_len = piece_end_ - piece_begin_};
  io_.op = step == Step::kWrite ? IoOp::kWrite : IoOp::kRead;
  io_.fua = step == Step::kWrite && request_.fua;
  io_.offset_bytes = piece_begin_;
  io_.length_bytes = piece_end_ - piece_begin_;
  io_.iov = {&iov_, 1};
  io_.done = &UnalignedJob::on_io_done;
  io_.owner = this;
  IoRequest* one = &io_;
  channel_.engine().submit({&one, 1});
}

void UnalignedJob::on_io_done(IoRequest& io, int32_t result) {
  static_cast<UnalignedJob*>(io.owner)->step_done(result);
}

void UnalignedJob::step_done(int32_t result) {
  if (result < 0 || step_ == Step::kWhole) return finish(result);
  // The file was cut short; what was moved so far is not what was asked for.
  if (static_cast<uint64_t>(result) != piece_end_ - piece_begin_)
    return finish(request_.op == BlockOp::kRead ? static_cast<int32_t>(done_bytes_) : -EIO);

  const uint64_t lead_bytes = request_.offset_bytes + done_bytes_ - piece_begin_;
  const auto piece = buffer_.bytes().subspan(lead_bytes, piece_bytes_);
  if (step_ == Step::kReadEdges) {
    copy_from_iovec(request_.iov, done_bytes_, piece);
    return submit_piece(Step::kWrite);
  }
  if (step_ == Step::kReadForGuest) copy_to_iovec(request_.iov, done_bytes_, piece);
  done_bytes_ += piece_bytes_;
  next_piece();
}

void UnalignedJob::finish(int32_t result) {
  const std::unique_ptr<UnalignedJob> self(this);
  if (locked_) channel_.image().write_locks().release(range_);
  channel_.finish(request_, result);
}

}  // namespace skiff::block
