// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/markdown_report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/bench/statistics.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/report_parts.h"

namespace skiff::vmm {
namespace {

// A value stays within its table's cell.
std::string cell_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

std::string value_text(const ExperimentResult& result, const CellResult& cell,
                       const MetricInfo& info) {
  const std::vector<double> values = values_of(cell, info.name);
  if (values.empty()) return "";
  const Interval interval = median_interval(values);
  std::string text = three_digits(interval.middle / info.unit);
  if (interval.low < interval.high)
    text += fmt::format(" ({} to {})", three_digits(interval.low / info.unit),
                        three_digits(interval.high / info.unit));
  const auto beside = compare_cell(result, cell, info);
  if (!beside) return text;
  const bool counts = beside->verdict == Verdict::kMore || beside->verdict == Verdict::kLess;
  const char* mark = counts ? "**" : "";
  return text + fmt::format(" {0}x{1}{0}", mark, factor_text(beside->ratio.middle));
}

std::string table(const ExperimentResult& result, const CellGroup& group) {
  std::vector<MetricInfo> metrics = shown_metrics(result);
  // Another group may have it.
  std::erase_if(metrics, [&group](const MetricInfo& info) {
    return std::ranges::all_of(group.cells, [&info](const CellResult* cell) {
      return values_of(*cell, info.name).empty();
    });
  });
  std::string text =
      fmt::format("| {} |", cell_text(group.name.empty() ? result.name : group.name));
  for (const MetricInfo& info : metrics) text += fmt::format(" {} |", cell_text(info.title));
  text += "\n|---|";
  for (size_t i = 0; i < metrics.size(); ++i) text += "---|";
  text += "\n";
  for (const CellResult* cell : group.cells) {
    text += fmt::format("| {} |", cell_text(name_in_group(result, *cell)));
    if (values_of(*cell, "iops").empty()) {
      const std::string why = first_failure(*cell);
      text += fmt::format(" {} |\n", cell_text(why.empty() ? "not measured" : why));
      continue;
    }
    for (const MetricInfo& info : metrics)
      text += fmt::format(" {} |", value_text(result, *cell, info));
    text += "\n";
  }
  if (const auto spread = group_spread(result, group.name, "iops"))
    text += fmt::format("\nThe same measured twice (A/A) differs by up to {:.1f} % in IOPS.\n",
                        100 * *spread);
  return text + "\n";
}

std::string failures(const ExperimentResult& result) {
  std::string text;
  for (const CellResult& cell : result.cells)
    for (const CellRound& round : cell.rounds)
      if (!round.failure.empty())
        text += fmt::format("- {}, {}: {}\n", cell_text(cell.cell.name),
                            round.round == 0 ? "warm-up" : fmt::format("round {}", round.round),
                            cell_text(round.failure));
  return text.empty() ? "" : "Failed or set aside:\n\n" + text + "\n";
}

}  // namespace

std::string markdown_report(const ExperimentResult& result) {
  std::string text = fmt::format("{}: medians of {} rounds after {} to warm up, seed {}{}.\n\n",
                                 result.name, result.rounds, result.warm_up, result.seed,
                                 result.interrupted ? ", interrupted" : "");
  for (const CellGroup& group : groups_of(result)) text += table(result, group);
  text += failures(result);
  for (const auto& [name, value] : result.machine)
    text += fmt::format("- {}: {}\n", name, cell_text(value));
  return text;
}

}  // namespace skiff::vmm
