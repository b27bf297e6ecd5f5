// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/bench_result.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace skiff::vmm {

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

EngineSummary summarise(const EngineResult& result) {
  EngineSummary summary;
  std::vector<double> iops;
  std::vector<double> cpu_ns;
  std::vector<double> switches;
  uint64_t reads = 0;
  uint64_t ios = 0;
  for (const RoundSample& round : result.rounds) {
    iops.push_back(round.iops());
    summary.latency.merge(round.latency);
    summary.share_latency.merge(round.share_latency);
    summary.missed += round.missed;
    reads += round.reads;
    ios += round.ios();
    if (round.ios() == 0) continue;
    const auto count = static_cast<double>(round.ios());
    cpu_ns.push_back(static_cast<double>(round.cpu_ns) / count);
    switches.push_back(static_cast<double>(round.context_switches) / count);
  }
  summary.iops = spread_of(iops);
  summary.cpu_ns_per_io = spread_of(cpu_ns).median;
  summary.switches_per_io = spread_of(switches).median;
  if (ios != 0) summary.read_share = static_cast<double>(reads) / static_cast<double>(ios);
  if (result.syscalls && result.syscalls->ios != 0) {
    summary.syscalls_per_io =
        static_cast<double>(result.syscalls->syscalls) / static_cast<double>(result.syscalls->ios);
  }
  return summary;
}

Spread ratio_of(const EngineResult& one, const EngineResult& other) {
  std::vector<double> ratios;
  const size_t rounds = std::min(one.rounds.size(), other.rounds.size());
  for (size_t i = 0; i < rounds; ++i) {
    const double base = other.rounds[i].iops();
    if (base > 0) ratios.push_back(one.rounds[i].iops() / base);
  }
  return spread_of(ratios);
}

}  // namespace skiff::vmm
