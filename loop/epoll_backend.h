// SPDX-License-Identifier: GPL-2.0-or-later
// EpollBackend: a loop's events through epoll, where io_uring is refused.
//
// Thread: wake() from any; the rest on the loop's. Ownership: owns epoll and wake descriptors.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <memory>
#include <vector>

#include "loop/loop_backend.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

class EpollBackend final : public LoopBackend {
 public:
  EpollBackend(LoopState& state, UniqueFd epoll_fd, UniqueFd wake_fd);
  ~EpollBackend() override;

  void bind() override;
  void poll(int64_t timeout_ns) override;
  void wake() override;
  void end_turn(int64_t) override {}
  void arm(Source& source) override;
  void disarm(Source& source) override;
  Ring* ring() override { return nullptr; }
  io_uring_sqe* next_sqe(RingOperation& operation) override;

 private:
  // What epoll knows of a source.
  struct Watched {
    int fd = -1;
    UniqueFd duplicate;  // Of a descriptor that another source watches already.
    uint32_t wanted = 0;
    // Files that epoll refuses, as they are always ready: reported in every turn.
    uint32_t always_ready = 0;
  };

  void add(Source& source);
  void report(Source& source, uint32_t ready);
  int wait(int64_t timeout_ns);

  LoopState& state_;
  UniqueFd epoll_fd_;
  UniqueFd wake_fd_;
  std::array<epoll_event, 128> events_{};
  std::vector<Source*> always_ready_;
};

}  // namespace skiff::loop
