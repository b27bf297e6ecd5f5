// SPDX-License-Identifier: GPL-2.0-or-later
// RequestProgress: turns one request into system calls, and their results into one result.
//
// The one place that knows what kernels do to a transfer: short reads and writes, EINTR, EAGAIN,
// the end of the file, no room, more segments than IOV_MAX, more bytes than go well in one piece,
// and writes that must be durable. Every engine asks next_step(), does it, and hands the outcome to
// advance() until that says kFinished. Thread: one at a time. Ownership: borrows the iovecs.
#pragma once

#include <sys/uio.h>

#include <climits>
#include <cstddef>
#include <cstdint>
#include <span>

namespace skiff::block {

enum class IoOp : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };
constexpr bool is_transfer(IoOp op) { return op == IoOp::kRead || op == IoOp::kWrite; }

// What fallocate(2) is told for kDiscard and kWriteZeroes. A hole reads back as zeroes.
int fallocate_mode(IoOp op);

// 0, or -EINVAL for what no file can hold: an end past 2^63 - 1, or a transfer whose byte count is
// no int32_t. The kernel would take an offset of 2^64 - 1 for "where the file is now".
int32_t refusal_of(IoOp op, uint64_t offset_bytes, uint64_t length_bytes);

// How a write becomes durable before it completes.
enum class Fua : uint8_t {
  kNo,
  kByFlag,   // RWF_DSYNC with each step; by flush where the file knows no such flag.
  kByFlush,  // Written, then flushed: for engines whose writes have no flags.
};

// One system call's worth. `iov` may point to `partial`, so a step stays where it was made.
struct IoStep {
  IoOp op = IoOp::kRead;
  bool dsync = false;  // kWrite with RWF_DSYNC.
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

  // A transfer larger than this goes in several steps: the kernel hands EAGAIN back for requests of
  // many bios, and one step must not hold a context for long.
  static constexpr uint64_t kMaxStepBytes = uint64_t{1} << 20;

  // What refusal_of() lets through. `length_bytes` is the sum of `iov` for transfers; `fua` matters
  // for kWrite only.
  void begin(IoOp op, uint64_t offset_bytes, uint64_t length_bytes, std::span<const iovec> iov,
             Fua fua = Fua::kNo);
  void next_step(IoStep& step, size_t max_segments = IOV_MAX) const;
  // `result`: bytes or -errno of that step, as the kernel gave it.
  Verdict advance(int32_t result);
  // Bytes moved, 0 for anything but a transfer, or -errno.
  int32_t result() const { return result_; }

 private:
  Verdict finish(int32_t result);
  Verdict transferred();
  void take_whole_segments(IoStep& step, size_t max_segments) const;
  Verdict moved(uint32_t bytes);
  int32_t moved_bytes() const;

  IoOp op_ = IoOp::kRead;
  Fua fua_ = Fua::kNo;
  bool flushing_ = false;  // The transfer is done, the flush that makes it durable is not.
  uint8_t again_ = 0;
  int32_t result_ = 0;
  uint64_t offset_bytes_ = 0;
  uint64_t left_bytes_ = 0;
  uint64_t total_bytes_ = 0;
  std::span<const iovec> iov_;  // What is left; the first entry from `skip_bytes_` on.
  size_t skip_bytes_ = 0;
};

}  // namespace skiff::block
