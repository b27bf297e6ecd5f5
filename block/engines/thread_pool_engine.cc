// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/thread_pool_engine.h"

#include <memory>
#include <span>
#include <utility>

#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

loop::Result<std::unique_ptr<IoEngine>> ThreadPoolEngine::create_worker(const IoTarget& target,
                                                                        loop::EventLoop& loop) {
  auto pool = loop::WorkerPool::create({.name = "io-worker", .min_workers = 1, .max_workers = 1});
  if (!pool) return pool.error().with_context("Engine worker");
  return std::unique_ptr<IoEngine>(new ThreadPoolEngine(target, loop, *std::move(pool)));
}

void ThreadPoolEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  for (IoRequest* request : batch) {
    if (begin(*request, Fua::kByFlag)) finish_in_pool(*request, pool_);
  }
}

}  // namespace skiff::block
