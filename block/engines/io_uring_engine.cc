// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/io_uring_engine.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>

#include "block/engines/engine_base.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

void prepare_transfer(io_uring_sqe* sqe, int fd, const IoStep& step) {
  const bool read = step.op == IoOp::kRead;
  if (step.iov.size() == 1) {
    // Saves the kernel the copy of the vector.
    const iovec& only = step.iov.front();
    const auto length = static_cast<unsigned>(only.iov_len);
    if (read)
      io_uring_prep_read(sqe, fd, only.iov_base, length, step.offset_bytes);
    else
      io_uring_prep_write(sqe, fd, only.iov_base, length, step.offset_bytes);
    return;
  }
  const auto count = static_cast<unsigned>(step.iov.size());
  if (read)
    io_uring_prep_readv(sqe, fd, step.iov.data(), count, step.offset_bytes);
  else
    io_uring_prep_writev(sqe, fd, step.iov.data(), count, step.offset_bytes);
}

void prepare(io_uring_sqe* sqe, int fd, const IoStep& step) {
  switch (step.op) {
    case IoOp::kRead:
    case IoOp::kWrite:
      prepare_transfer(sqe, fd, step);
      if (step.dsync) sqe->rw_flags = RWF_DSYNC;
      break;
    case IoOp::kFlush:
      io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
      break;
    case IoOp::kDiscard:
    case IoOp::kWriteZeroes:
      io_uring_prep_fallocate(sqe, fd, fallocate_mode(step.op),
                              static_cast<off_t>(step.offset_bytes),
                              static_cast<off_t>(step.length_bytes));
      break;
  }
}

}  // namespace

IoUringEngine::IoUringEngine(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool)
    : EngineBase(target, loop),
      pool_(pool),
      can_fallocate_(loop.ring_supports(IORING_OP_FALLOCATE)) {}

IoUringEngine::~IoUringEngine() {
  if (fixed_file_) home_.loop().unregister_file(*fixed_file_);
}

// A description of its own: the image's locks hang on the device's, and the ring may keep what it
// was given open for a while after both are closed.
void IoUringEngine::register_file() {
  tried_to_register_ = true;
  struct stat facts = {};
  if (fstat(target_.fd, &facts) != 0 || (!S_ISREG(facts.st_mode) && !S_ISBLK(facts.st_mode)))
    return;
  const int flags = fcntl(target_.fd, F_GETFL) & (O_ACCMODE | O_DIRECT);
  const std::string path = fmt::format("/proc/self/fd/{}", target_.fd);
  const loop::UniqueFd own(::open(path.c_str(), flags | O_CLOEXEC));
  if (own) fixed_file_ = home_.loop().register_file(own.get());
}

void IoUringEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  if (!tried_to_register_) register_file();
  for (IoRequest* request : batch) {
    if (!begin(*request, Fua::kByFlag)) continue;
    const bool allocates = request->op == IoOp::kDiscard || request->op == IoOp::kWriteZeroes;
    if (allocates && !can_fallocate_) {
      finish_in_pool(*request, pool_);
      continue;
    }
    IoInFlight& state = request->in_flight;
    state.ring.request = request;
    state.ring.done = &IoUringEngine::on_cqe;
    queue_step(*request, Punt::kNo);
  }
}

void IoUringEngine::queue_step(IoRequest& request, Punt punt) {
  IoInFlight& state = request.in_flight;
  state.progress.next_step(state.step);
  io_uring_sqe* sqe = home_.loop().next_sqe(state.ring);
  // Preparing clears the SQE; what the loop put there to find the operation must survive.
  const uint64_t user_data = sqe->user_data;
  prepare(sqe, fixed_file_ ? static_cast<int>(*fixed_file_) : target_.fd, state.step);
  sqe->user_data = user_data;
  if (fixed_file_) sqe->flags |= IOSQE_FIXED_FILE;
  if (punt == Punt::kYes) sqe->flags |= IOSQE_ASYNC;
}

void IoUringEngine::on_cqe(loop::RingOperation& operation, int32_t result, uint32_t /*flags*/) {
  IoRequest& request = *static_cast<IoInFlight::RingLink&>(operation).request;
  IoInFlight& state = request.in_flight;
  auto& self = *static_cast<IoUringEngine*>(state.engine);
  self.home_.assert_here();
  switch (state.progress.advance(result)) {
    case RequestProgress::Verdict::kMore:
      return self.queue_step(request, Punt::kNo);
    case RequestProgress::Verdict::kMoreBlocking:
      return self.queue_step(request, Punt::kYes);
    case RequestProgress::Verdict::kFinished:
      break;
  }
  self.finish(request, state.progress.result());
}

}  // namespace skiff::block
