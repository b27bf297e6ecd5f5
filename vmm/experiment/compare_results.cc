// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/compare_results.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "vmm/bench/statistics.h"
#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {
namespace {

const CellResult* counterpart(const ExperimentResult& result, const CellResult& cell) {
  for (const CellResult& one : result.cells)
    if (!one.cell.is_twin && one.cell.run == cell.cell.run && one.cell.options == cell.cell.options)
      return &one;
  return nullptr;
}

const char* word_of(Verdict verdict, bool more_is_better) {
  switch (verdict) {
    case Verdict::kMore:
      return more_is_better ? "better" : "worse";
    case Verdict::kLess:
      return more_is_better ? "worse" : "better";
    case Verdict::kWithinSpread:
      return "within the spread";
    case Verdict::kUnknown:
      break;
  }
  return "cannot be told";
}

struct Counts {
  size_t beyond = 0;
  size_t within = 0;
  size_t unknown = 0;
};

std::string row(const ExperimentResult& before, const ExperimentResult& after,
                const CellResult& old_cell, const CellResult& new_cell, const MetricInfo& info,
                Counts& counts) {
  const auto olds = values_of(old_cell, info.name);
  const auto news = values_of(new_cell, info.name);
  if (olds.empty() || news.empty() || median_of(olds) <= 0) return "";
  const Interval ratio = unpaired_ratio_interval(news, olds);
  const auto old_spread = group_spread(before, old_cell.cell.group, info.name);
  const auto new_spread = group_spread(after, new_cell.cell.group, info.name);
  std::optional<double> spread;
  if (old_spread && new_spread) spread = std::max(*old_spread, *new_spread);
  const Verdict verdict = judge(ratio, spread, std::min(olds.size(), news.size()));
  if (verdict == Verdict::kUnknown)
    ++counts.unknown;
  else if (verdict == Verdict::kWithinSpread)
    ++counts.within;
  else
    ++counts.beyond;
  return fmt::format("  {:<20} {:>12.5g} -> {:>12.5g}  {:.3f} ({:.3f} to {:.3f}){}  {}\n",
                     info.title, median_of(olds) / info.unit, median_of(news) / info.unit,
                     ratio.middle, ratio.low, ratio.high,
                     spread ? fmt::format("  A/A {:.1f} %", 100 * *spread) : "",
                     word_of(verdict, info.more_is_better));
}

std::string differing_facts(const ExperimentResult& before, const ExperimentResult& after) {
  std::string text;
  for (const auto& [name, value] : before.machine) {
    const auto other = std::ranges::find(after.machine, name, &MachineFacts::value_type::first);
    if (other == after.machine.end() || other->second == value || name.starts_with("Load"))
      continue;
    text += fmt::format("The machines differ: {}: {} -> {}\n", name, value, other->second);
  }
  return text;
}

}  // namespace

std::string compare_text(const ExperimentResult& before, const ExperimentResult& after) {
  std::string text;
  if (before.name != after.name)
    text += fmt::format("Two experiments: {} and {}\n", before.name, after.name);
  text += differing_facts(before, after);
  Counts counts;
  for (const CellResult& cell : before.cells) {
    if (cell.cell.is_twin) continue;
    const CellResult* other = counterpart(after, cell);
    if (other == nullptr) {
      text += cell.cell.name + ": only in the first\n";
      continue;
    }
    text += cell.cell.name + "\n";
    std::string rows;
    for (const MetricInfo& info : shown_metrics(before))
      rows += row(before, after, cell, *other, info, counts);
    text += rows.empty() ? "  not measured in both\n" : rows;
  }
  for (const CellResult& cell : after.cells)
    if (!cell.cell.is_twin && counterpart(before, cell) == nullptr)
      text += cell.cell.name + ": only in the second\n";
  text += fmt::format(
      "{} differences exceed the spread, {} do not, {} cannot be told (fewer than 3 rounds, or no "
      "pairs).\nOf many comparisons at 95 % some exceed it by chance.\n",
      counts.beyond, counts.within, counts.unknown);
  return text;
}

}  // namespace skiff::vmm
