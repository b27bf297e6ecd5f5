// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/status_job.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>

#include "block/block_channel.h"
#include "block/block_limits.h"
#include "block/formats/raw_channel.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {}  // namespace

int32_t file_block_status(int fd, uint64_t offset_bytes, uint64_t length_bytes,
                          BlockStatus& status) {
  // As long as nothing better is known.
  status = {.length_bytes = length_bytes};
  const auto offset = static_cast<off_t>(offset_bytes);
  const off_t data = lseek(fd, offset, SEEK_DATA);
  if (data < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) return 0;
  if (data < 0 && errno != ENXIO) return -errno;
  if (data == offset) {
    const off_t hole = lseek(fd, offset, SEEK_HOLE);
    if (hole <= offset) return 0;  // Changed while we looked.
    const uint64_t known_bytes = static_cast<uint64_t>(hole - offset);
    const uint64_t whole_bytes = (known_bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
    status.length_bytes = std::min(length_bytes, whole_bytes);
    return 0;
  }
  // No data up to there, or up to the end of the file; behind that there is not even a hole.
  const off_t end = data < 0 ? lseek(fd, 0, SEEK_END) : data;
  if (end <= offset) return 0;
  const uint64_t hole_bytes = static_cast<uint64_t>(end - offset) / kSectorBytes * kSectorBytes;
  if (hole_bytes == 0) {
    status.length_bytes = kSectorBytes;  // The sector has data in its later part.
    return 0;
  }
  status = {.length_bytes = std::min(length_bytes, hole_bytes),
            .reads_as_zeroes = true,
            .allocated = false};
  return 0;
}

void StatusJob::start(RawChannel& channel, BlockRequest& request) {
  // Owns itself: a request has no room for what only this path needs. on_done() deletes.
  auto* job = new StatusJob(channel, request);
  job->run = &StatusJob::run_on_worker;
  job->done = &StatusJob::on_done;
  job->lane = Lane::kLong;
  channel.image().pool().submit(channel.loop(), *job);
}

void StatusJob::run_on_worker(loop::WorkItem& item) {
  auto& self = static_cast<StatusJob&>(item);
  self.result_ = file_block_status(self.channel_.image().target().fd, self.request_.offset_bytes,
                                   self.request_.length_bytes, self.request_.status);
}

void StatusJob::on_done(loop::WorkItem& item) {
  const std::unique_ptr<StatusJob> self(&static_cast<StatusJob&>(item));
  self->channel_.finish(self->request_, self->result_);
}

}  // namespace skiff::block
