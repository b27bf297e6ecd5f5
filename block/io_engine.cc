// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/io_engine.h"

#include <spdlog/fmt/fmt.h>

#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "block/adaptive/auto_engine.h"
#include "block/engines/io_uring_engine.h"
#include "block/engines/sync_engine.h"
#include "block/engines/thread_pool_engine.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using EnginePtr = std::unique_ptr<IoEngine>;

Result<EnginePtr> make_io_uring(const IoTarget& target, loop::EventLoop& loop) {
  if (!loop.uses_io_uring()) {
    return Error(ErrorKind::kUnsupported,
                 "Engine io_uring needs a kernel that allows io_uring (sysctl "
                 "kernel.io_uring_disabled, seccomp filters); choose threads or auto");
  }
  return EnginePtr(std::make_unique<IoUringEngine>(target, loop));
}

EnginePtr make_auto(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool) {
  EnginePtr ring;
  if (loop.uses_io_uring() && target.null == nullptr)
    ring = std::make_unique<IoUringEngine>(target, loop);
  return std::make_unique<AutoEngine>(target, loop, std::move(ring),
                                      std::make_unique<ThreadPoolEngine>(target, loop, pool));
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
      return Error(ErrorKind::kUnsupported,
                   fmt::format("Engine {} is not built in", engine_name(kind)));
    case IoEngineKind::kIoUring:
      return make_io_uring(target, loop);
  }
  return EnginePtr(std::make_unique<ThreadPoolEngine>(target, loop, pool));
}

}  // namespace skiff::block
