// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/posix_aio_engine.h"

#include <aio.h>
#include <fcntl.h>
#include <sys/types.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/message_list.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/worker_pool.h"

namespace skiff::block {

loop::Result<std::unique_ptr<IoEngine>> PosixAioEngine::create(const IoTarget& target,
                                                               loop::EventLoop& loop,
                                                               loop::WorkerPool& pool) {
  std::unique_ptr<PosixAioEngine> engine(new PosixAioEngine(target, loop, pool));
  PosixAioEngine& self = *engine;
  // Not those that the loop's thread is pinned to.
  auto cpus = loop::CpuSet::of_process();
  if (!cpus) return cpus.error();
  auto waiter = loop::Thread::create({.name = "posix-aio", .cpus = *std::move(cpus)},
                                     [&self] { self.wait_for_operations(); });
  if (!waiter) return waiter.error().with_context("Engine posix-aio");
  engine->waiter_ = *std::move(waiter);
  return std::unique_ptr<IoEngine>(std::move(engine));
}

PosixAioEngine::~PosixAioEngine() {
  {
    loop::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  waiter_.join();
}

void PosixAioEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  for (IoRequest* request : batch) {
    if (!begin(*request, Fua::kByFlush)) continue;
    if (request->op == IoOp::kDiscard || request->op == IoOp::kWriteZeroes)
      finish_in_pool(*request, pool_);
    else
      start_step(*request);
  }
}

void PosixAioEngine::start_step(IoRequest& request) {
  Operation& operation = take_operation();
  operation.request = &request;
  while (true) {
    const int32_t refusal = enqueue(operation);
    if (refusal == 0) return;
    const RequestProgress::Verdict verdict = request.in_flight.progress.advance(refusal);
    if (verdict == RequestProgress::Verdict::kMore) continue;
    free_operations_.push_back(&operation);
    // Out of threads or memory for another aiocb: a worker has what it needs already.
    if (verdict == RequestProgress::Verdict::kMoreBlocking) return finish_in_pool(request, pool_);
    return finish_later(request, request.in_flight.progress.result());
  }
}

int32_t PosixAioEngine::enqueue(Operation& operation) {
  IoInFlight& state = operation.request->in_flight;
  state.progress.next_step(state.step, 1);
  aiocb& control = operation.control;
  control = {};
  control.aio_fildes = target_.fd;
  control.aio_sigevent.sigev_notify = SIGEV_NONE;
  int result = 0;
  if (state.step.op == IoOp::kFlush) {
    result = aio_fsync(O_DSYNC, &control);
  } else {
    const iovec segment = state.step.iov.empty() ? iovec{} : state.step.iov.front();
    control.aio_buf = segment.iov_base;
    control.aio_nbytes = segment.iov_len;
    control.aio_offset = static_cast<off_t>(state.step.offset_bytes);
    result = state.step.op == IoOp::kRead ? aio_read(&control) : aio_write(&control);
  }
  if (result != 0) return -errno;
  loop::MutexLock lock(mutex_);
  enqueued_.push_back(operation);
  wake_.notify_one();
  return 0;
}

PosixAioEngine::Operation& PosixAioEngine::take_operation() {
  if (free_operations_.empty()) {
    operations_.push_back(std::make_unique<Operation>());
    free_operations_.reserve(operations_.size());
    operations_.back()->run = &PosixAioEngine::on_ended;
    operations_.back()->priority = loop::Priority::kCompletion;
    return *operations_.back();
  }
  Operation& operation = *free_operations_.back();
  free_operations_.pop_back();
  return operation;
}

void PosixAioEngine::wait_for_operations() {
  loop::MutexLock lock(mutex_);
  while (true) {
    while (enqueued_.empty() && !stopping_) wake_.wait(mutex_);
    if (enqueued_.empty()) return;
    auto& operation = static_cast<Operation&>(*enqueued_.pop_front());
    mutex_.unlock();
    const std::array<const aiocb*, 1> oldest = {&operation.control};
    while (aio_error(oldest[0]) == EINPROGRESS) aio_suspend(oldest.data(), 1, nullptr);
    const int error = aio_error(oldest[0]);
    const ssize_t result = aio_return(&operation.control);
    operation.result = error != 0 ? -error : static_cast<int32_t>(result);
    // From here on it is the home thread's again.
    home_.loop().post(operation);
    mutex_.lock();
  }
}

void PosixAioEngine::on_ended(loop::Message& message) {
  auto& operation = static_cast<Operation&>(message);
  IoRequest& request = *operation.request;
  auto& self = *static_cast<PosixAioEngine*>(request.in_flight.engine);
  self.home_.assert_here();
  self.free_operations_.push_back(&operation);
  switch (request.in_flight.progress.advance(operation.result)) {
    case RequestProgress::Verdict::kMore:
      return self.start_step(request);
    case RequestProgress::Verdict::kMoreBlocking:
      return self.finish_in_pool(request, self.pool_);
    case RequestProgress::Verdict::kFinished:
      return self.finish(request, request.in_flight.progress.result());
  }
}

}  // namespace skiff::block
