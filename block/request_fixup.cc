// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/request_fixup.h"

#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace skiff::block {
namespace {

// What every device's blocks divide.
constexpr uint64_t kAlignedBytes = 4096;
// How often a request may be told EAGAIN before it goes where it may block.
constexpr uint8_t kPatience = 3;
constexpr uint8_t kGiveUp = 16;

}  // namespace

int fallocate_mode(IoOp op) {
  const int mode = op == IoOp::kDiscard ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
  return mode | FALLOC_FL_KEEP_SIZE;
}

int32_t refusal_of(IoOp op, uint64_t offset_bytes, uint64_t length_bytes) {
  if (op == IoOp::kFlush) return 0;
  constexpr uint64_t kEnd = std::numeric_limits<int64_t>::max();
  if (offset_bytes > kEnd || length_bytes > kEnd - offset_bytes) return -EINVAL;
  if (is_transfer(op) && length_bytes > std::numeric_limits<int32_t>::max()) return -EINVAL;
  return 0;
}

void RequestProgress::begin(IoOp op, uint64_t offset_bytes, uint64_t length_bytes,
                            std::span<const iovec> iov, Fua fua) {
  op_ = op;
  fua_ = op == IoOp::kWrite ? fua : Fua::kNo;
  flushing_ = false;
  again_ = 0;
  result_ = 0;
  offset_bytes_ = offset_bytes;
  left_bytes_ = length_bytes;
  total_bytes_ = length_bytes;
  iov_ = iov;
  skip_bytes_ = 0;
  // A step of nothing but an empty segment would look like the end of the file.
  while (!iov_.empty() && iov_.front().iov_len == 0) iov_ = iov_.subspan(1);
}

void RequestProgress::next_step(IoStep& step, size_t max_segments) const {
  step.op = flushing_ ? IoOp::kFlush : op_;
  step.dsync = fua_ == Fua::kByFlag;
  step.offset_bytes = offset_bytes_;
  step.length_bytes = left_bytes_;
  step.iov = {};
  if (!is_transfer(step.op) || iov_.empty()) return;
  const uint64_t first_bytes = iov_.front().iov_len - skip_bytes_;
  if (skip_bytes_ > 0 || first_bytes > kMaxStepBytes) {
    // The rest of a half-done segment goes alone: no copy of the vector, and a kernel that stopped
    // in the middle is rare enough.
    step.partial = {.iov_base = static_cast<char*>(iov_.front().iov_base) + skip_bytes_,
                    .iov_len = std::min(first_bytes, kMaxStepBytes)};
    step.length_bytes = step.partial.iov_len;
    step.iov = {&step.partial, 1};
    return;
  }
  step.iov = iov_;
  if (left_bytes_ > kMaxStepBytes || iov_.size() > max_segments)
    take_whole_segments(step, max_segments);
}

void RequestProgress::take_whole_segments(IoStep& step, size_t max_segments) const {
  size_t count = 0;
  size_t aligned_count = 0;
  uint64_t bytes = 0;
  uint64_t aligned_bytes = 0;
  while (count < std::min(iov_.size(), max_segments) &&
         bytes + iov_[count].iov_len <= kMaxStepBytes) {
    bytes += iov_[count++].iov_len;
    if (bytes % kAlignedBytes != 0) continue;
    aligned_count = count;
    aligned_bytes = bytes;
  }
  // A cut elsewhere would make two misaligned requests of an aligned one.
  if (aligned_bytes > 0) {
    count = aligned_count;
    bytes = aligned_bytes;
  }
  step.iov = iov_.first(count);
  step.length_bytes = bytes;
}

RequestProgress::Verdict RequestProgress::advance(int32_t result) {
  if (result == -EINTR) return Verdict::kMore;
  if (result == -EAGAIN) {
    if (++again_ >= kGiveUp) return finish(result);
    return again_ > kPatience ? Verdict::kMoreBlocking : Verdict::kMore;
  }
  if (flushing_) return finish(result < 0 ? result : moved_bytes());
  if (!is_transfer(op_)) return finish(std::min(result, 0));
  if (result == -EOPNOTSUPP && fua_ == Fua::kByFlag) {
    fua_ = Fua::kByFlush;
    return Verdict::kMore;
  }
  if (result < 0) {
    // A direct read that met the end of the file off alignment may not ask for the rest.
    const bool at_end = op_ == IoOp::kRead && result == -EINVAL && moved_bytes() > 0;
    return finish(at_end ? moved_bytes() : result);
  }
  if (result == 0 && left_bytes_ > 0) {
    // End of file for a read; a write that moves nothing has no room.
    return finish(op_ == IoOp::kRead ? moved_bytes() : -ENOSPC);
  }
  return moved(static_cast<uint32_t>(result));
}

RequestProgress::Verdict RequestProgress::moved(uint32_t bytes) {
  again_ = 0;
  size_t advance_bytes = std::min<uint64_t>(bytes, left_bytes_);
  offset_bytes_ += advance_bytes;
  left_bytes_ -= advance_bytes;
  advance_bytes += skip_bytes_;
  while (!iov_.empty() && advance_bytes >= iov_.front().iov_len) {
    advance_bytes -= iov_.front().iov_len;
    iov_ = iov_.subspan(1);
  }
  skip_bytes_ = advance_bytes;
  if (left_bytes_ == 0 || iov_.empty()) return transferred();
  return Verdict::kMore;
}

RequestProgress::Verdict RequestProgress::transferred() {
  if (fua_ != Fua::kByFlush) return finish(moved_bytes());
  flushing_ = true;
  return Verdict::kMore;
}

RequestProgress::Verdict RequestProgress::finish(int32_t result) {
  result_ = result;
  return Verdict::kFinished;
}

int32_t RequestProgress::moved_bytes() const {
  return static_cast<int32_t>(total_bytes_ - left_bytes_);
}

}  // namespace skiff::block
