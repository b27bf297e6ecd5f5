// SPDX-License-Identifier: GPL-2.0-or-later
// LiveHistogram: a LatencyHistogram that one thread fills while others read it.
//
// Plain loads and stores on the writer's side: no lock, no locked instruction. A reader may catch
// it half-way through a record(), and then sees that time or does not. Thread: record() from one at
// a time, with a hand-over in between; snapshot() from any. Ownership: 9.5 KiB in place; neither
// movable nor copyable.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "loop/latency_histogram.h"

namespace skiff::loop {

class LiveHistogram {
 public:
  // O(1), no allocation; below 0 counts as 0. `times`: for how many it stands.
  void record(int64_t latency_ns, uint64_t times = 1);
  LatencyHistogram snapshot() const;

 private:
  std::array<std::atomic<uint64_t>, LatencyHistogram::kBuckets> counts_{};
  std::atomic<uint64_t> sum_ns_{0};
  std::atomic<int64_t> max_ns_{0};
};

}  // namespace skiff::loop
