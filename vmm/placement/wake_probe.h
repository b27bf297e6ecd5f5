// SPDX-License-Identifier: GPL-2.0-or-later
// How long a sleeping thread takes to wake: pings from one loop to another and back, one at a time.
//
// Thread: the `from` loop's. Ownership: borrows both loops while `guard` lives; when its owner is
// gone, the probe ends without a word.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "loop/event_loop.h"

namespace skiff::vmm {

struct WakeProbe {
  loop::EventLoop* from = nullptr;
  loop::EventLoop* to = nullptr;
  uint32_t pings = 64;
  std::weak_ptr<void> guard;
  // The median of the way there, on the `from` loop. Few of the pings meet a thread that is awake.
  std::function<void(int64_t)> measured;
};
void measure_wake(WakeProbe probe);

}  // namespace skiff::vmm
