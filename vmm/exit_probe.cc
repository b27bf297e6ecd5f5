// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/exit_probe.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "loop/clock.h"
#include "loop/result.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

loop::Result<int64_t> measure_exit_ns(Vcpu& vcpu) {
  constexpr size_t kRounds = 32;
  constexpr int64_t kWholeExit = 2;
  const loop::MonotonicClock clock;
  std::array<int64_t, kRounds> times_ns = {};
  for (int64_t& time_ns : times_ns) {
    vcpu.request_exit();
    const int64_t begun_ns = clock.now_ns();
    const auto exit = vcpu.run();
    if (!exit) return exit.error();
    time_ns = clock.now_ns() - begun_ns;
  }
  vcpu.clear_exit_request();
  std::ranges::nth_element(times_ns, times_ns.begin() + kRounds / 2);
  return times_ns[kRounds / 2] * kWholeExit;
}

}  // namespace skiff::vmm
