// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/clock.h"

#include <time.h>

#include <cstdint>
#include <ctime>

namespace skiff::loop {

int64_t MonotonicClock::now_ns() const {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace skiff::loop
