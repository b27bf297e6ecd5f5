// SPDX-License-Identifier: GPL-2.0-or-later
// FdInput and FdOutput: the two directions of a HostFd on an event loop, with backpressure.
//
// Thread: main loop throughout. None of them may be destroyed from inside its own callback.
// Ownership: each owns its HostFd; borrows the loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "devices/chardev/host_fd.h"
#include "loop/event_loop.h"

namespace skiff::devices {

// Reads while there is room, and only then.
class FdInput {
 public:
  struct Callbacks {
    std::function<size_t()> room;
    std::function<void(std::span<const uint8_t>)> data;
    std::function<void(int os_error)> ended;  // 0: end of input. Nothing is read afterwards.
  };
  FdInput(loop::EventLoop& loop, HostFd fd, Callbacks callbacks);

  void resume();  // There may be room again.
  const HostFd& fd() const { return fd_; }

 private:
  void on_ready();

  HostFd fd_;
  Callbacks callbacks_;
  bool ended_ = false;
  std::unique_ptr<loop::FdWatcher> watcher_;  // Null when the descriptor cannot be waited for,
  loop::BottomHalf read_bh_;                  // then this takes turns.
};

class FdOutput {
 public:
  FdOutput(loop::EventLoop& loop, HostFd fd, std::function<void()> on_writable);

  // Bytes taken, or -errno when the other side is gone for good. After a short write
  // `on_writable` follows.
  ssize_t write(std::span<const uint8_t> data);
  const HostFd& fd() const { return fd_; }

 private:
  void wait_for_room();

  HostFd fd_;
  std::function<void()> on_writable_;
  std::unique_ptr<loop::FdWatcher> watcher_;
  loop::BottomHalf retry_bh_;
};

}  // namespace skiff::devices
