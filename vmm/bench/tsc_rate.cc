// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/tsc_rate.h"

#include <time.h>

#include <cstdint>
#include <limits>

#include "loop/clock.h"
#include "vmm/bench/driver/tick_scale.h"

namespace skiff::vmm {
namespace {

struct Reading {
  int64_t ns = 0;
  uint64_t ticks = 0;
};

// Both clocks at the same moment: the closest of several tries.
Reading read_both() {
  const loop::MonotonicClock clock;
  Reading best;
  uint64_t best_apart = std::numeric_limits<uint64_t>::max();
  for (int i = 0; i < 16; ++i) {
    const uint64_t before = tick_now();
    const int64_t ns = clock.now_ns();
    const uint64_t apart = tick_now() - before;
    if (apart >= best_apart) continue;
    best_apart = apart;
    best = {ns, before + apart / 2};
  }
  return best;
}

uint64_t measure() {
  constexpr timespec kSpan = {.tv_sec = 0, .tv_nsec = 50'000'000};
  const Reading begin = read_both();
  ::nanosleep(&kSpan, nullptr);
  const Reading end = read_both();
  const double ticks = static_cast<double>(end.ticks - begin.ticks);
  return static_cast<uint64_t>(ticks * 1e6 / static_cast<double>(end.ns - begin.ns) + 0.5);
}

}  // namespace

uint64_t tsc_khz() {
  static const uint64_t kKhz = measure();
  return kKhz;
}

}  // namespace skiff::vmm
