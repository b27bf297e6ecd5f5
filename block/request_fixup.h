// SPDX-License-Identifier: GPL-2.0-or-later
// RequestProgress: turns one request into system calls, and their results into one result.
//
// The one place that knows what kernels do to a transfer: short reads and writes, EINTR, EAGAIN,
// more segments than IOV_MAX. Every engine asks next_step(), does it, and hands the outcome to
// advance() until that says kFinished. Thread: one at a time. Ownership: borrows the iovecs.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

namespace skiff::block {

enum class IoOp : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

// What fallocate(2) is told for kDiscard and kWriteZeroes. A hole reads back as zeroes.
int fallocate_mode(IoOp op);

// One system call's worth. `iov` may point to `partial`, so a step stays where it was made.
struct IoStep {
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;  // kDiscard and kWriteZeroes; of a transfer, the sum of `iov`.
  std::span<const iovec> iov = {};
  iovec partial = {};
};

class RequestProgress {
 public:
  enum class Verdict : uint8_t {
    kFinished,     // result() is final.
    kMore,         // Take the next step.
    kMoreBlocking  // The same, where it may block: the kernel keeps saying EAGAIN.
  };

  // `length_bytes` is the sum of `iov` for transfers.
  void begin(IoOp op, uint64_t offset_bytes, uint64_t length_bytes, std::span<const iovec> iov);
  void next_step(IoStep& step) const;
  // `result`: bytes or -errno of that step, as the kernel gave it.
  Verdict advance(int32_t result);
  // Bytes moved, 0 for anything but a transfer, or -errno.
  int32_t result() const { return result_; }

 private:
  Verdict finish(int32_t result);
  Verdict moved(uint32_t bytes);
  int32_t moved_bytes() const;

  IoOp op_ = IoOp::kRead;
  uint8_t again_ = 0;
  int32_t result_ = 0;
  uint64_t offset_bytes_ = 0;
  uint64_t left_bytes_ = 0;
  uint64_t total_bytes_ = 0;
  std::span<const iovec> iov_;  // What is left; the first entry from `skip_bytes_` on.
  size_t skip_bytes_ = 0;
};

}  // namespace skiff::block
