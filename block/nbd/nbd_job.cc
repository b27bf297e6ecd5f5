// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_job.h"

#include <libnbd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "block/block_channel.h"
#include "block/block_limits.h"
#include "block/iovec_copy.h"
#include "block/nbd/nbd_connection.h"
#include "block/nbd/nbd_export.h"

namespace skiff::block {
namespace {

constexpr uint64_t kGatherBytesMax = uint64_t{1} << 20;
// Lengths are 32 bits in the protocol; this is the largest whole number of any blocks below.
constexpr uint64_t kRangeBytesMax = uint64_t{1} << 31;

}  // namespace

void NbdJob::start(NbdConnection& connection, const NbdExport& facts, Done done) {
  connection_ = &connection;
  facts_ = &facts;
  done_ = done;
  done_bytes_ = 0;
  flushed_ = false;
  iov_index_ = 0;
  iov_skip_bytes_ = 0;
  command_.done = &NbdJob::on_command_done;
  command_.owner = this;
  step();
}

void NbdJob::step() {
  command_.flags = 0;
  command_.offset_bytes = request->offset_bytes + done_bytes_;
  const uint64_t left_bytes = request->length_bytes - done_bytes_;
  if (request->op == BlockOp::kFlush) return send_flush();
  // Only before the first step could nothing be left, and the channel keeps such requests.
  if (left_bytes == 0) return send_flush();
  if (request->op == BlockOp::kRead || request->op == BlockOp::kWrite)
    return send_transfer(left_bytes);
  send_range(left_bytes);
}

void NbdJob::send_transfer(uint64_t left_bytes) {
  command_.op = request->op == BlockOp::kRead ? NbdCommand::Op::kRead : NbdCommand::Op::kWrite;
  if (request->op == BlockOp::kWrite && request->fua && facts_->fua)
    command_.flags = LIBNBD_CMD_FLAG_FUA;
  while (iov_skip_bytes_ == request->iov[iov_index_].iov_len) {
    ++iov_index_;
    iov_skip_bytes_ = 0;
  }
  const iovec& here = request->iov[iov_index_];
  const uint64_t wanted = std::min(left_bytes, facts_->transfer_bytes_max);
  if (here.iov_len - iov_skip_bytes_ >= wanted) {
    command_.length_bytes = wanted;
    command_.bytes = static_cast<std::byte*>(here.iov_base) + iov_skip_bytes_;
  } else {
    command_.length_bytes = std::min(wanted, kGatherBytesMax);
    // Zeroed: a server's reply that leaves gaps must not show the guest our memory.
    gathered_ = std::make_unique<std::byte[]>(command_.length_bytes);
    command_.bytes = gathered_.get();
    if (request->op == BlockOp::kWrite)
      copy_from_iovec(request->iov, done_bytes_, {gathered_.get(), command_.length_bytes});
  }
  connection_->send(command_);
}

void NbdJob::send_range(uint64_t left_bytes) {
  command_.length_bytes = std::min(left_bytes, kRangeBytesMax);
  if (request->op == BlockOp::kStatus) {
    command_.op = NbdCommand::Op::kStatus;
    command_.flags = LIBNBD_CMD_FLAG_REQ_ONE;
  } else if (request->op == BlockOp::kDiscard) {
    command_.op = NbdCommand::Op::kTrim;
  } else {
    command_.op = NbdCommand::Op::kZero;
    if (!request->may_unmap) command_.flags |= LIBNBD_CMD_FLAG_NO_HOLE;
    if (request->no_fallback) command_.flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
    if (request->fua && facts_->fua) command_.flags |= LIBNBD_CMD_FLAG_FUA;
  }
  connection_->send(command_);
}

void NbdJob::send_flush() {
  flushed_ = true;
  command_.op = NbdCommand::Op::kFlush;
  connection_->send(command_);
}

void NbdJob::on_command_done(NbdCommand& command, int32_t result) {
  static_cast<NbdJob*>(command.owner)->command_done(result);
}

void NbdJob::command_done(int32_t outcome) {
  if (outcome != 0) return finish(outcome);
  if (flushed_) return finish(0);
  if (request->op == BlockOp::kStatus) {
    answer_status();
    return finish(0);
  }
  if (gathered_) {
    if (request->op == BlockOp::kRead)
      copy_to_iovec(request->iov, done_bytes_, {gathered_.get(), command_.length_bytes});
    gathered_.reset();
  }
  done_bytes_ += command_.length_bytes;
  if (request->op == BlockOp::kRead || request->op == BlockOp::kWrite) {
    iov_skip_bytes_ += command_.length_bytes;
    while (iov_index_ < request->iov.size() &&
           iov_skip_bytes_ >= request->iov[iov_index_].iov_len) {
      iov_skip_bytes_ -= request->iov[iov_index_].iov_len;
      ++iov_index_;
    }
  }
  const bool needs_flush = request->fua && !facts_->fua && facts_->flush;
  if (done_bytes_ == request->length_bytes && !needs_flush) return finish(0);
  step();
}

void NbdJob::answer_status() {
  // A server may know of smaller extents than we do, or say more than was asked for. What it says
  // of less than a sector says nothing of the sector.
  const uint64_t said_bytes = std::min(command_.extent_bytes, command_.length_bytes);
  const uint64_t whole_bytes = said_bytes / kSectorBytes * kSectorBytes;
  BlockStatus& status = request->status;
  if (whole_bytes == 0) {
    status = {.length_bytes = kSectorBytes, .reads_as_zeroes = false, .allocated = true};
    return;
  }
  status.length_bytes = whole_bytes;
  status.reads_as_zeroes = (command_.extent_flags & LIBNBD_STATE_ZERO) != 0;
  status.allocated = (command_.extent_flags & LIBNBD_STATE_HOLE) == 0;
}

void NbdJob::finish(int32_t outcome) {
  gathered_.reset();
  done_(*this, outcome);
}

}  // namespace skiff::block
