// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/request_fixup.h"

#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <span>

namespace skiff::block {
namespace {

constexpr size_t kMaxSegments = IOV_MAX;
// How often a request may be told EAGAIN before it goes where it may block.
constexpr uint8_t kPatience = 3;
constexpr uint8_t kGiveUp = 16;

bool is_transfer(IoOp op) { return op == IoOp::kRead || op == IoOp::kWrite; }

}  // namespace

int fallocate_mode(IoOp op) {
  const int mode = op == IoOp::kDiscard ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
  return mode | FALLOC_FL_KEEP_SIZE;
}

void RequestProgress::begin(IoOp op, uint64_t offset_bytes, uint64_t length_bytes,
                            std::span<const iovec> iov) {
  op_ = op;
  again_ = 0;
  result_ = 0;
  offset_bytes_ = offset_bytes;
  left_bytes_ = length_bytes;
  total_bytes_ = length_bytes;
  iov_ = iov;
  skip_bytes_ = 0;
}

void RequestProgress::next_step(IoStep& step) const {
  step.offset_bytes = offset_bytes_;
  step.length_bytes = left_bytes_;
  step.iov = {};
  if (!is_transfer(op_)) return;
  if (skip_bytes_ > 0) {
    // The rest of a half-done segment goes alone: no copy of the vector, and a kernel that stopped
    // in the middle is rare enough.
    step.partial = {.iov_base = static_cast<char*>(iov_.front().iov_base) + skip_bytes_,
                    .iov_len = iov_.front().iov_len - skip_bytes_};
    step.length_bytes = step.partial.iov_len;
    step.iov = {&step.partial, 1};
    return;
  }
  step.iov = iov_.first(std::min(iov_.size(), kMaxSegments));
  if (step.iov.size() == iov_.size()) return;
  step.length_bytes = 0;
  for (const iovec& segment : step.iov) step.length_bytes += segment.iov_len;
}

RequestProgress::Verdict RequestProgress::advance(int32_t result) {
  if (result == -EINTR) return Verdict::kMore;
  if (result == -EAGAIN) {
    if (++again_ >= kGiveUp) return finish(result);
    return again_ > kPatience ? Verdict::kMoreBlocking : Verdict::kMore;
  }
  if (!is_transfer(op_)) return finish(std::min(result, 0));
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
  if (left_bytes_ == 0 || iov_.empty()) return finish(moved_bytes());
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
