// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/wake_probe.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "loop/event_loop.h"

namespace skiff::vmm {
namespace {

struct Run {
  explicit Run(WakeProbe its_probe) : probe(std::move(its_probe)) {}
  const WakeProbe probe;
  std::vector<int64_t> times_ns;
};

void ping(const std::shared_ptr<Run>& run) {
  const WakeProbe& probe = run->probe;
  const auto owner = probe.guard.lock();
  if (!owner) return;
  std::vector<int64_t>& times = run->times_ns;
  if (times.size() == probe.pings) {
    const auto middle = times.begin() + static_cast<ptrdiff_t>(times.size() / 2);
    std::ranges::nth_element(times, middle);
    return probe.measured(*middle);
  }
  const int64_t sent_ns = probe.from->now_ns();
  probe.to->post([run, sent_ns] {
    run->times_ns.push_back(run->probe.to->now_ns() - sent_ns);
    run->probe.from->post([run] { ping(run); });
  });
}

}  // namespace

void measure_wake(WakeProbe probe) {
  if (probe.pings > 0) ping(std::make_shared<Run>(std::move(probe)));
}

}  // namespace skiff::vmm
