// SPDX-License-Identifier: GPL-2.0-or-later
// NbdJob: one block request as NBD commands, on whichever connection carries it.
//
// Splits what is larger than the server takes, gathers scattered buffers, and follows a FUA write
// by a flush where the server has no FUA. Thread: one loop at a time: the channel's, or after
// NbdHome::submit() the home loop until it is handed back. Ownership: the channel's; borrows the
// request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "block/block_channel.h"
#include "block/nbd/nbd_connection.h"
#include "block/nbd/nbd_export.h"
#include "loop/event_loop.h"

namespace skiff::block {

class NbdChannel;
class NbdHome;

class NbdJob final : public loop::Message {
 public:
  NbdJob() = default;
  NbdJob(const NbdJob&) = delete;
  NbdJob& operator=(const NbdJob&) = delete;

  // `result`: 0, -errno, or NbdCommand::kLost; then it may be started again, from the beginning.
  using Done = void (*)(NbdJob& job, int32_t result);
  void start(NbdConnection& connection, const NbdExport& facts, Done done);

  bool changes_the_image() const {
    return request->op == BlockOp::kWrite || request->op == BlockOp::kDiscard ||
           request->op == BlockOp::kWriteZeroes;
  }

  // What its carriers keep with it.
  BlockRequest* request = nullptr;
  NbdChannel* channel = nullptr;
  NbdHome* home = nullptr;
  uint64_t flush_mark = 0;  // Of a kFlush.
  int32_t result = 0;

 private:
  static void on_command_done(NbdCommand& command, int32_t result);
  void step();
  void send_transfer(uint64_t left_bytes);
  void send_range(uint64_t left_bytes);
  void send_flush();
  void command_done(int32_t result);
  void answer_status();
  void finish(int32_t outcome);

  NbdConnection* connection_ = nullptr;
  const NbdExport* facts_ = nullptr;
  Done done_ = nullptr;
  NbdCommand command_;
  uint64_t done_bytes_ = 0;
  bool flushed_ = false;
  // The place in the request's buffers where done_bytes_ is.
  size_t iov_index_ = 0;
  size_t iov_skip_bytes_ = 0;
  std::unique_ptr<std::byte[]> gathered_;  // The present piece, when no single buffer holds it.
};

}  // namespace skiff::block
