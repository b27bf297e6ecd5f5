// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/io_engine.h"

#include <memory>

#include "block/engines/io_uring_engine.h"
#include "block/engines/thread_pool_engine.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

loop::Result<std::unique_ptr<IoEngine>> make_io_engine(IoEngineKind kind, const IoTarget& target,
                                                       loop::EventLoop& loop,
                                                       loop::WorkerPool& pool) {
  if (kind == IoEngineKind::kIoUring && !loop.uses_io_uring()) {
    return loop::Error(loop::ErrorKind::kUnsupported,
                       "The io_uring engine needs a kernel that allows io_uring (sysctl "
                       "kernel.io_uring_disabled); choose threads or auto");
  }
  if (kind != IoEngineKind::kThreads && loop.uses_io_uring())
    return std::unique_ptr<IoEngine>(std::make_unique<IoUringEngine>(target, loop));
  return std::unique_ptr<IoEngine>(std::make_unique<ThreadPoolEngine>(target, loop, pool));
}

}  // namespace skiff::block
