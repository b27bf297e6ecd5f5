// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/experiment_result.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loop/latency_histogram.h"
#include "vmm/bench/statistics.h"
#include "vmm/experiment/cell_sample.h"

namespace skiff::vmm {
namespace {

constexpr size_t kRoundsToJudge = 3;

constexpr std::array<MetricInfo, 8> kUsual = {{{"iops", "IOPS", 1, true},
                                               {"lat_ns.mean", "mean us", 1e3},
                                               {"lat_ns.p50", "p50 us", 1e3},
                                               {"lat_ns.p99", "p99 us", 1e3},
                                               {"lat_ns.p999", "p99.9 us", 1e3},
                                               {"cpu_ns_per_io", "CPU us/I/O", 1e3},
                                               {"syscalls_per_io", "syscalls/I/O"},
                                               {"switches_per_io", "switches/I/O"}}};
// Only of cells with several children.
constexpr std::array<MetricInfo, 4> kFleet = {{{"fairness.min_share", "slowest/mean", 1, true},
                                               {"fairness.jain", "Jain's index", 1, true},
                                               {"threads", "threads"},
                                               {"anonymous_bytes", "memory MiB", 1 << 20}}};

bool anyone_has(const ExperimentResult& result, std::string_view metric) {
  return std::ranges::any_of(
      result.cells, [&](const CellResult& cell) { return !values_of(cell, metric).empty(); });
}

std::optional<double> value_in(const CellRound& round, std::string_view metric) {
  if (!round.sample || round.set_aside || round.round == 0) return std::nullopt;
  const auto found = round.sample->metrics.find(std::string(metric));
  if (found == round.sample->metrics.end()) return std::nullopt;
  return found->second;
}

}  // namespace

std::vector<MetricInfo> shown_metrics(const ExperimentResult& result) {
  std::vector<MetricInfo> shown;
  for (const MetricInfo& info : kUsual)
    if (anyone_has(result, info.name)) shown.push_back(info);
  const bool fleet =
      std::ranges::any_of(result.cells, [](const CellResult& cell) { return cell.cell.is_fleet; });
  if (fleet) {
    for (const MetricInfo& info : kFleet)
      if (anyone_has(result, info.name)) shown.push_back(info);
  }
  for (const std::string& name : result.metrics) {
    const auto known = std::ranges::find(shown, name, &MetricInfo::name);
    if (known == shown.end() && anyone_has(result, name)) shown.push_back({name, name});
  }
  return shown;
}

std::vector<double> values_of(const CellResult& cell, std::string_view metric) {
  std::vector<double> values;
  for (const CellRound& round : cell.rounds)
    if (const auto value = value_in(round, metric)) values.push_back(*value);
  return values;
}

std::optional<Interval> paired_ratio(const CellResult& one, const CellResult& other,
                                     std::string_view metric) {
  std::map<uint32_t, double> others;
  for (const CellRound& round : other.rounds)
    if (const auto value = value_in(round, metric)) others[round.round] = *value;
  std::vector<double> ones;
  std::vector<double> same;
  for (const CellRound& round : one.rounds) {
    const auto value = value_in(round, metric);
    const auto found = others.find(round.round);
    if (!value || found == others.end()) continue;
    ones.push_back(*value);
    same.push_back(found->second);
  }
  if (ones.empty() || median_of(same) <= 0) return std::nullopt;
  return ratio_interval(ones, same);
}

const CellResult* baseline_of(const ExperimentResult& result, const CellResult& cell) {
  if (result.compare.empty() || cell.cell.is_baseline) return nullptr;
  for (const CellResult& one : result.cells)
    if (one.cell.is_baseline && one.cell.group == cell.cell.group) return &one;
  return nullptr;
}

std::optional<double> group_spread(const ExperimentResult& result, std::string_view group,
                                   std::string_view metric) {
  std::optional<double> spread;
  for (size_t i = 1; i < result.cells.size(); ++i) {
    const CellResult& twin = result.cells[i];
    if (!twin.cell.is_twin || twin.cell.group != group) continue;
    const auto ratio = paired_ratio(twin, result.cells[i - 1], metric);
    if (ratio) spread = std::max(spread.value_or(0), spread_of_ratio(*ratio));
  }
  return spread;
}

Verdict judge(const Interval& ratio, std::optional<double> spread, size_t rounds) {
  if (!spread || rounds < kRoundsToJudge || ratio.middle <= 0) return Verdict::kUnknown;
  if (ratio.low > 1 && ratio.middle > 1 + *spread) return Verdict::kMore;
  if (ratio.high < 1 && 1 / ratio.middle > 1 + *spread) return Verdict::kLess;
  return Verdict::kWithinSpread;
}

std::optional<loop::LatencyHistogram> latency_of(const CellResult& cell) {
  loop::LatencyHistogram all;
  for (const CellRound& round : cell.rounds)
    if (round.round != 0 && !round.set_aside && round.sample && round.sample->latency)
      all.merge(*round.sample->latency);
  if (all.count() == 0) return std::nullopt;
  return all;
}

std::string first_failure(const CellResult& cell) {
  for (const CellRound& round : cell.rounds)
    if (!round.failure.empty()) return round.failure;
  return "";
}

}  // namespace skiff::vmm
