// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/thread_pool_engine.h"

#include <fcntl.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <span>

#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/check.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

// One step as a system call: bytes, or -errno.
int32_t perform(int fd, const IoRequest& request, const IoStep& step) {
  const auto offset = static_cast<off_t>(step.offset_bytes);
  const auto count = static_cast<int>(step.iov.size());
  ssize_t result = 0;
  switch (request.op) {
    case IoOp::kRead:
      result = preadv(fd, step.iov.data(), count, offset);
      break;
    case IoOp::kWrite:
      result = pwritev(fd, step.iov.data(), count, offset);
      break;
    case IoOp::kFlush:
      result = fdatasync(fd);
      break;
    case IoOp::kDiscard:
    case IoOp::kWriteZeroes:
      result =
          fallocate(fd, fallocate_mode(request.op), offset, static_cast<off_t>(step.length_bytes));
      break;
  }
  return result < 0 ? -errno : static_cast<int32_t>(result);
}

bool is_long(IoOp op) { return op != IoOp::kRead && op != IoOp::kWrite; }

}  // namespace

ThreadPoolEngine::~ThreadPoolEngine() { SKIFF_CHECK(in_flight_ == 0); }

void ThreadPoolEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  for (IoRequest* request : batch) {
    IoInFlight& state = request->in_flight;
    state.engine = this;
    state.progress.begin(request->op, request->offset_bytes, request->length_bytes, request->iov);
    state.work.request = request;
    state.work.run = &ThreadPoolEngine::run_on_worker;
    state.work.done = &ThreadPoolEngine::on_done;
    state.work.lane =
        is_long(request->op) ? loop::WorkItem::Lane::kLong : loop::WorkItem::Lane::kShort;
    ++in_flight_;
    pool_.submit(home_.loop(), state.work);
  }
}

void ThreadPoolEngine::run_on_worker(loop::WorkItem& item) {
  const IoRequest& request = *static_cast<IoInFlight::WorkLink&>(item).request;
  IoInFlight& state = static_cast<IoInFlight::WorkLink&>(item).request->in_flight;
  const int fd = static_cast<ThreadPoolEngine*>(state.engine)->target_.fd;
  // A worker may block, so the kernel's two kinds of "once more" are the same here.
  do {
    state.progress.next_step(state.step);
  } while (state.progress.advance(perform(fd, request, state.step)) !=
           RequestProgress::Verdict::kFinished);
}

void ThreadPoolEngine::on_done(loop::WorkItem& item) {
  IoRequest& request = *static_cast<IoInFlight::WorkLink&>(item).request;
  auto& self = *static_cast<ThreadPoolEngine*>(request.in_flight.engine);
  self.home_.assert_here();
  --self.in_flight_;
  request.done(request, request.in_flight.progress.result());
}

}  // namespace skiff::block
