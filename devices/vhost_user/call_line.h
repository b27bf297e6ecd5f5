// SPDX-License-Identifier: GPL-2.0-or-later
// CallLine: a line to the front end (a queue's interrupt, its errors), an eventfd that it made.
//
// On a loop with a ring the write goes with the turn's own system call. The eventfd is the peer's,
// who may fill its counter or make it a blocking one at any time: with a ring nothing here ever
// waits for it (without one, as far as poll(2) can tell), and signals that cannot be delivered at
// once become one. Thread: the home loop, but for construction. Ownership: owns the descriptor;
// close() has called back before it goes.
#pragma once

#include <cstdint>
#include <functional>

#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class CallLine {
 public:
  explicit CallLine(loop::EventLoop& home);
  ~CallLine();
  CallLine(const CallLine&) = delete;
  CallLine& operator=(const CallLine&) = delete;

  // Signals this eventfd from now on. An empty one: nobody is told.
  void set(loop::UniqueFd fd);
  void signal();
  // Forgets the eventfd. `closed` runs when the kernel has nothing of it any more, perhaps inside
  // the call.
  void close(std::function<void()> closed);

 private:
  static void on_written(loop::RingOperation& operation, int32_t result, uint32_t flags);
  struct Write : loop::RingOperation {
    CallLine* line = nullptr;
  };
  void signal_by_ring() SKIFF_REQUIRES(home_);
  void signal_directly() const SKIFF_REQUIRES(home_);
  void cancel() SKIFF_REQUIRES(home_);

  const loop::Home home_;
  loop::UniqueFd fd_ SKIFF_GUARDED_BY(home_);
  loop::UniqueFd old_fd_ SKIFF_GUARDED_BY(home_);  // That a write under way may still be for.
  Write write_ SKIFF_GUARDED_BY(home_);
  Write cancel_ SKIFF_GUARDED_BY(home_);
  uint64_t write_name_ SKIFF_GUARDED_BY(home_) = 0;
  bool writing_ SKIFF_GUARDED_BY(home_) = false;
  bool cancelling_ SKIFF_GUARDED_BY(home_) = false;
  bool again_ SKIFF_GUARDED_BY(home_) = false;
  std::function<void()> closed_ SKIFF_GUARDED_BY(home_);
  const uint64_t one_ = 1;
};

}  // namespace skiff::devices
