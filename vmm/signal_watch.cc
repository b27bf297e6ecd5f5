// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/signal_watch.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {
namespace {

sigset_t watched_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGWINCH);
  sigaddset(&signals, SIGCONT);
  return signals;
}

}  // namespace

void SignalWatch::block_signals() {
  const sigset_t signals = watched_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A reader that went away is an error of that write, not the end of the machine.
  std::signal(SIGPIPE, SIG_IGN);
  // A disk image that meets `ulimit -f` fails its write; that must not be the end of the machine.
  std::signal(SIGXFSZ, SIG_IGN);
}

loop::Result<std::unique_ptr<SignalWatch>> SignalWatch::create(loop::EventLoop& loop,
                                                               std::function<void(int)> on_signal) {
  const sigset_t signals = watched_signals();
  loop::UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return loop::Error::from_errno(errno, "Watching for signals");
  return std::unique_ptr<SignalWatch>(new SignalWatch(loop, std::move(fd), std::move(on_signal)));
}

SignalWatch::SignalWatch(loop::EventLoop& loop, loop::UniqueFd fd,
                         std::function<void(int)> on_signal)
    : fd_(std::move(fd)),
      on_signal_(std::move(on_signal)),
      watcher_(loop, fd_.get(), loop::Priority::kService, [this](uint32_t) { read_signals(); }) {
  watcher_.watch(POLLIN);
}

void SignalWatch::read_signals() {
  signalfd_siginfo info = {};
  while (::read(fd_.get(), &info, sizeof(info)) == sizeof(info))
    on_signal_(static_cast<int>(info.ssi_signo));
}

}  // namespace skiff::vmm
