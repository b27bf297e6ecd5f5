// SPDX-License-Identifier: GPL-2.0-or-later
// PosixAioEngine: requests by aio_read(3) and its family, as glibc does them: on threads of its
// own, one at a time for each descriptor.
//
// glibc tells of a completion by a signal, which other threads' signal masks decide about, or by a
// new thread for each request, which costs more than the request. Instead a thread of the engine
// waits in aio_suspend() for the oldest request: as glibc serves a descriptor in order, that is the
// one that ends first. See docs/decisions/0006-engines.md.
//
// aio has no vectors (a request goes segment by segment), no flags (a durable write is a write and
// a flush) and no fallocate (that goes to the pool). Its threads inherit the submitter's CPUs.
// Thread: the home loop's throughout, but for the waiter. Ownership: borrows loop and pool.
#pragma once

#include <aio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "block/engines/engine_base.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/message_list.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/worker_pool.h"

namespace skiff::block {

class PosixAioEngine final : public EngineBase {
 public:
  // kExhausted when there is no thread for the waiter.
  static loop::Result<std::unique_ptr<IoEngine>> create(const IoTarget& target,
                                                        loop::EventLoop& loop,
                                                        loop::WorkerPool& pool);
  ~PosixAioEngine() override;

  std::string_view name() const override { return engine_name(IoEngineKind::kPosixAio); }
  void submit(std::span<IoRequest* const> batch) override;

 private:
  // One aiocb, used again and again. In the waiter's list and in the loop's mailbox in turn.
  struct Operation : loop::Message {
    aiocb control = {};
    IoRequest* request = nullptr;
    int32_t result = 0;
  };

  PosixAioEngine(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool)
      : EngineBase(target, loop), pool_(pool) {}

  void start_step(IoRequest& request) SKIFF_REQUIRES(home_);
  // 0, or -errno when aio would not even take it.
  int32_t enqueue(Operation& operation) SKIFF_REQUIRES(home_);
  Operation& take_operation() SKIFF_REQUIRES(home_);
  static void on_ended(loop::Message& message);
  void wait_for_operations();

  loop::WorkerPool& pool_;
  std::vector<std::unique_ptr<Operation>> operations_ SKIFF_GUARDED_BY(home_);
  std::vector<Operation*> free_operations_ SKIFF_GUARDED_BY(home_);

  loop::Mutex mutex_;
  loop::ConditionVariable wake_;
  loop::MessageList enqueued_ SKIFF_GUARDED_BY(mutex_);  // The oldest first.
  bool stopping_ SKIFF_GUARDED_BY(mutex_) = false;
  loop::Thread waiter_;
};

}  // namespace skiff::block
