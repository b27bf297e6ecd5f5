// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/storage/run_storage.h"

#include <signal.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/cli/exit_status.h"
#include "vmm/signal_watch.h"
#include "vmm/storage/storage_options.h"
#include "vmm/storage/storage_server.h"

namespace skiff::vmm {
namespace {

int fail(const loop::Error& error) {
  std::fprintf(stderr, "skiff: %s\n", error.message().c_str());
  return kExitUsage;
}

}  // namespace

int run_storage(const StorageOptions& options) {
  auto loop = loop::EventLoop::create();
  if (!loop) return fail(loop.error());
  loop::EventLoop& main_loop = **loop;
  auto server = StorageServer::create(main_loop, options);
  if (!server) return fail(server.error());
  bool stopping = false;
  auto signals = SignalWatch::create(main_loop, [&](int signal) {
    if (signal == SIGHUP && !stopping) return (*server)->follow_sizes();
    if (signal != SIGTERM && signal != SIGINT) return;
    // The host may never finish what is in flight; whoever asks twice means it.
    if (stopping) ::_exit(kExitStopped);
    stopping = true;
    (*server)->stop([&main_loop] { main_loop.stop(); });
  });
  if (!signals) return fail(signals.error());
  main_loop.run();
  return 0;
}

}  // namespace skiff::vmm
