// SPDX-License-Identifier: GPL-2.0-or-later
// StatusJob: asks the file system where a file has data (lseek SEEK_DATA and SEEK_HOLE).
//
// On a worker: the answer may have to be read from the disk. This path allocates. What the file
// system does not tell counts as data. Thread: start() and finish on the channel's loop.
// Ownership: owns itself from start() until the request is finished.
#pragma once

#include <cstdint>

#include "block/block_channel.h"
#include "loop/worker_pool.h"

namespace skiff::block {

class RawChannel;

// [offset, offset + length) of the file `fd`, into `status`. 0, or -errno. Blocks.
int32_t file_block_status(int fd, uint64_t offset_bytes, uint64_t length_bytes,
                          BlockStatus& status);

class StatusJob : private loop::WorkItem {
 public:
  // `request` is a kStatus in range and not empty.
  static void start(RawChannel& channel, BlockRequest& request);

 private:
  StatusJob(RawChannel& channel, BlockRequest& request) : channel_(channel), request_(request) {}
  static void run_on_worker(loop::WorkItem& item);
  static void on_done(loop::WorkItem& item);

  RawChannel& channel_;
  BlockRequest& request_;
  int32_t result_ = 0;
};

}  // namespace skiff::block
