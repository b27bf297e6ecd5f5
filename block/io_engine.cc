// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/io_engine.h"

#include <memory>
#include <optional>
#include <string_view>

#include "block/adaptive/auto_engine.h"
#include "block/engines/io_uring_engine.h"
#include "block/engines/linux_aio_engine.h"
#include "block/engines/null_engine.h"
#include "block/engines/posix_aio_engine.h"
#include "block/engines/sync_engine.h"
#include "block/engines/thread_pool_engine.h"
#include "block/io_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using EnginePtr = std::unique_ptr<IoEngine>;

Error no_io_uring() {
  return Error(ErrorKind::kUnsupported,
               "Engine io_uring needs a kernel that allows io_uring (sysctl "
               "kernel.io_uring_disabled, seccomp filters); choose threads or auto");
}

// What does not block and suits the loop best; null when there is nothing but the pool.
EnginePtr make_ring(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool) {
  if (target.null != nullptr)
    return std::make_unique<NullEngine>(IoEngineKind::kIoUring, target, loop);
  if (!loop.uses_io_uring()) return nullptr;
  return std::make_unique<IoUringEngine>(target, loop, pool);
}

EnginePtr make_auto(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool) {
  return std::make_unique<AutoEngine>(target, loop, make_ring(target, loop, pool),
                                      std::make_unique<ThreadPoolEngine>(target, loop, pool));
}

Result<EnginePtr> make_unblocking(IoEngineKind kind, const IoTarget& target, loop::EventLoop& loop,
                                  loop::WorkerPool& pool) {
  if (kind == IoEngineKind::kIoUring && !loop.uses_io_uring()) return no_io_uring();
  if (target.null != nullptr) return EnginePtr(std::make_unique<NullEngine>(kind, target, loop));
  if (kind == IoEngineKind::kPosixAio) return PosixAioEngine::create(target, loop, pool);
  if (kind == IoEngineKind::kLinuxAio) return LinuxAioEngine::create(target, loop, pool);
  return EnginePtr(std::make_unique<IoUringEngine>(target, loop, pool));
}

}  // namespace

std::string_view engine_name(IoEngineKind kind) {
  switch (kind) {
    case IoEngineKind::kAuto:
      return "auto";
    case IoEngineKind::kSync:
      return "sync";
    case IoEngineKind::kWorker:
      return "worker";
    case IoEngineKind::kThreads:
      return "threads";
    case IoEngineKind::kPosixAio:
      return "posix-aio";
    case IoEngineKind::kLinuxAio:
      return "linux-aio";
    case IoEngineKind::kIoUring:
      return "io_uring";
  }
  return "";
}

std::optional<IoEngineKind> parse_engine(std::string_view name) {
  for (const IoEngineKind kind : kAllEngineKinds) {
    if (engine_name(kind) == name) return kind;
  }
  return std::nullopt;
}

Result<EnginePtr> make_io_engine(IoEngineKind kind, const IoTarget& target, loop::EventLoop& loop,
                                 loop::WorkerPool& pool) {
  switch (kind) {
    case IoEngineKind::kAuto:
      return make_auto(target, loop, pool);
    case IoEngineKind::kSync:
      return EnginePtr(std::make_unique<SyncEngine>(target, loop));
    case IoEngineKind::kWorker:
      return ThreadPoolEngine::create_worker(target, loop);
    case IoEngineKind::kThreads:
      break;
    case IoEngineKind::kPosixAio:
    case IoEngineKind::kLinuxAio:
    case IoEngineKind::kIoUring:
      return make_unblocking(kind, target, loop, pool);
  }
  return EnginePtr(std::make_unique<ThreadPoolEngine>(target, loop, pool));
}

}  // namespace skiff::block
