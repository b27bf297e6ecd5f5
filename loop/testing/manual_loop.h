// SPDX-License-Identifier: GPL-2.0-or-later
// ManualLoop: an event loop for tests, whose turns and time advance only when told to.
//
// Thread: the test's. Ownership: owns its loop and clock.
#pragma once

#include <memory>

#include "loop/clock.h"
#include "loop/event_loop.h"

namespace skiff::loop {

class ManualLoop {
 public:
  ManualLoop();  // Over epoll: no io_uring assumed.

  EventLoop& loop() { return *loop_; }
  operator EventLoop&() { return *loop_; }  // NOLINT: stands in for a loop.
  ManualClock& clock() { return clock_; }

  // Turns without sleeping until a turn has nothing to do.
  void run_until_idle();
  void advance_ns(int64_t delta_ns);  // Moves the clock, then run_until_idle().

 private:
  ManualClock clock_;
  std::unique_ptr<EventLoop> loop_;
};

}  // namespace skiff::loop
