// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/testing/manual_loop.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::loop {

ManualLoop::ManualLoop() {
  Result<std::unique_ptr<EventLoop>> loop =
      EventLoop::create({.backend = EventLoop::Backend::kEpoll, .clock = &clock_});
  SKIFF_CHECK(loop.has_value());
  loop_ = *std::move(loop);
}

void ManualLoop::run_until_idle() {
  while (loop_->run_once(EventLoop::Wait::kNo)) {
  }
}

void ManualLoop::advance_ns(int64_t delta_ns) {
  clock_.advance_ns(delta_ns);
  run_until_idle();
}

}  // namespace skiff::loop
