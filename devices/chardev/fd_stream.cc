// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/fd_stream.h"

#include <poll.h>
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "devices/chardev/host_fd.h"
#include "loop/event_loop.h"

namespace skiff::devices {

FdInput::FdInput(loop::EventLoop& loop, HostFd fd, Callbacks callbacks)
    : fd_(std::move(fd)),
      callbacks_(std::move(callbacks)),
      read_bh_(loop, loop::Priority::kDevice, [this] { on_ready(); }) {
  if (fd_.pollable())
    watcher_ = std::make_unique<loop::FdWatcher>(loop, fd_.fd(), loop::Priority::kDevice,
                                                 [this](uint32_t) { on_ready(); });
}

void FdInput::resume() {
  if (ended_) return;
  if (watcher_) {
    watcher_->watch(POLLIN);
  } else {
    read_bh_.schedule();
  }
}

// One read for each turn: other sources get theirs.
void FdInput::on_ready() {
  if (ended_) return;
  std::array<uint8_t, 4096> buffer;
  const size_t room = std::min(callbacks_.room(), buffer.size());
  if (room == 0) {
    if (watcher_) watcher_->watch(0);  // Until resume().
    return;
  }
  const ssize_t count = fd_.read(std::span(buffer).first(room));
  if (count == -EAGAIN) return;
  if (count <= 0) {
    ended_ = true;
    if (watcher_) watcher_->watch(0);
    callbacks_.ended(static_cast<int>(-count));
    return;
  }
  if (!watcher_) read_bh_.schedule();
  callbacks_.data(std::span(buffer).first(static_cast<size_t>(count)));
}

FdOutput::FdOutput(loop::EventLoop& loop, HostFd fd, std::function<void()> on_writable)
    : fd_(std::move(fd)),
      on_writable_(std::move(on_writable)),
      retry_bh_(loop, loop::Priority::kDevice, [this] { on_writable_(); }) {
  if (fd_.pollable())
    watcher_ = std::make_unique<loop::FdWatcher>(loop, fd_.fd(), loop::Priority::kDevice,
                                                 [this](uint32_t) {
                                                   watcher_->watch(0);
                                                   on_writable_();
                                                 });
}

ssize_t FdOutput::write(std::span<const uint8_t> data) {
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t count = fd_.write(data.subspan(done));
    if (count == -EAGAIN || count == 0) {
      wait_for_room();
      break;
    }
    if (count < 0) return count;
    done += static_cast<size_t>(count);
  }
  return static_cast<ssize_t>(done);
}

void FdOutput::wait_for_room() {
  if (watcher_) {
    watcher_->watch(POLLOUT);
  } else {
    retry_bh_.schedule();
  }
}

}  // namespace skiff::devices
