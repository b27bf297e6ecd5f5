// SPDX-License-Identifier: GPL-2.0-or-later
// ThreadPoolEngine: requests as blocking system calls on workers: the shared pool's ("threads"), or
// one of the engine's own, which takes them in the order of submission ("worker").
//
// Thread: the home loop's throughout; only the system calls run on workers. Ownership: borrows loop
// and shared pool.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "block/engines/engine_base.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

class ThreadPoolEngine final : public EngineBase {
 public:
  ThreadPoolEngine(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool)
      : EngineBase(target, loop), pool_(pool) {}
  // With a worker of its own. Fails when the system has no thread to give.
  static loop::Result<std::unique_ptr<IoEngine>> create_worker(const IoTarget& target,
                                                               loop::EventLoop& loop);

  std::string_view name() const override { return own_pool_ != nullptr ? "worker" : "threads"; }
  void submit(std::span<IoRequest* const> batch) override;

 private:
  ThreadPoolEngine(const IoTarget& target, loop::EventLoop& loop,
                   std::unique_ptr<loop::WorkerPool> own_pool)
      : EngineBase(target, loop), own_pool_(std::move(own_pool)), pool_(*own_pool_) {}

  std::unique_ptr<loop::WorkerPool> own_pool_;
  loop::WorkerPool& pool_;
};

}  // namespace skiff::block
