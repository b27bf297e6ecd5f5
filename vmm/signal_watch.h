// SPDX-License-Identifier: GPL-2.0-or-later
// SignalWatch: SIGINT, SIGTERM, SIGHUP, SIGWINCH and SIGCONT as events of the main loop.
//
// Thread: block_signals() on the main thread before any other exists (threads inherit the mask);
// the rest on the main loop. Ownership: borrows the loop; owns the signalfd.
#pragma once

#include <functional>
#include <memory>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {

class SignalWatch {
 public:
  // Blocks the watched signals, and ignores SIGPIPE and SIGXFSZ, for good.
  static void block_signals();

  // `on_signal` gets the signal's number.
  static loop::Result<std::unique_ptr<SignalWatch>> create(loop::EventLoop& loop,
                                                           std::function<void(int)> on_signal);

 private:
  SignalWatch(loop::EventLoop& loop, loop::UniqueFd fd, std::function<void(int)> on_signal);
  void read_signals();

  loop::UniqueFd fd_;
  std::function<void(int)> on_signal_;
  loop::FdWatcher watcher_;
};

}  // namespace skiff::vmm
