// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/report_parts.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "vmm/bench/statistics.h"
#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {

std::vector<CellGroup> groups_of(const ExperimentResult& result) {
  std::vector<CellGroup> groups;
  for (const CellResult& cell : result.cells) {
    const auto known = std::ranges::find(groups, cell.cell.group, &CellGroup::name);
    if (known != groups.end())
      known->cells.push_back(&cell);
    else
      groups.push_back({cell.cell.group, {&cell}});
  }
  return groups;
}

std::string name_in_group(const ExperimentResult& result, const CellResult& cell) {
  const char* again = cell.cell.is_twin ? " (again)" : "";
  if (result.compare == "run") return cell.cell.run + again;
  for (const auto& [option, value] : cell.cell.options)
    if (option == result.compare) return value + again;
  return cell.cell.name;
}

std::string three_digits(double value) {
  if (value == 0) return "0";
  const double size = std::fabs(value);
  if (size >= 100) return fmt::format("{:.0f}", value);
  if (size >= 10) return fmt::format("{:.1f}", value);
  if (size >= 1) return fmt::format("{:.2f}", value);
  return fmt::format("{:.3g}", value);
}

std::string factor_text(double ratio) {
  if (ratio >= 100) return fmt::format("{:.0f}", ratio);
  return ratio >= 10 ? fmt::format("{:.1f}", ratio) : fmt::format("{:.2f}", ratio);
}

std::optional<ComparedCell> compare_cell(const ExperimentResult& result, const CellResult& cell,
                                         const MetricInfo& info) {
  const CellResult* baseline = baseline_of(result, cell);
  if (baseline == nullptr) return std::nullopt;
  const auto ratio = paired_ratio(cell, *baseline, info.name);
  if (!ratio) return std::nullopt;
  const size_t rounds =
      std::min(values_of(cell, info.name).size(), values_of(*baseline, info.name).size());
  return ComparedCell{*ratio,
                      judge(*ratio, group_spread(result, cell.cell.group, info.name), rounds)};
}

}  // namespace skiff::vmm
