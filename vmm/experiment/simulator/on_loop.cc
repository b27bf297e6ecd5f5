// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/on_loop.h"

#include <cstdint>
#include <ctime>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/result.h"

namespace skiff::vmm {

loop::Result<std::vector<loop::CpuSet>> usable_cpus() {
  const auto all = loop::CpuSet::of_process();
  if (!all) return all.error();
  std::vector<loop::CpuSet> each;
  for (uint32_t cpu = 0; each.size() < all->count(); ++cpu) {
    if (!all->contains(cpu)) continue;
    each.emplace_back();
    each.back().add(cpu);
  }
  return each;
}

int64_t thread_cpu_ns() {
  timespec time = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace skiff::vmm
