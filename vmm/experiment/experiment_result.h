// SPDX-License-Identifier: GPL-2.0-or-later
// ExperimentResult: what an experiment has measured, where, and the sums over it.
//
// Thread: any; value types and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/latency_histogram.h"
#include "loop/result.h"
#include "vmm/bench/statistics.h"
#include "vmm/experiment/cell_sample.h"
#include "vmm/experiment/experiment_plan.h"

namespace skiff::vmm {

// One measurement of one cell.
struct CellRound {
  uint32_t round = 0;  // From 1; 0 for those that warmed up, of which only failures are kept.
  std::optional<CellSample> sample;
  std::string failure;     // Why there is no sample, or why it does not count.
  bool set_aside = false;  // It was measured, but the host gave its CPUs to others.
  double steal_percent = 0;
  int64_t wall_ns = 0;
};

struct CellResult {
  ExperimentCell cell;
  std::vector<CellRound> rounds;
};

// Said in the report and kept in the JSON: "kernel" -> "Linux 6.18".
using MachineFacts = std::vector<std::pair<std::string, std::string>>;

struct ExperimentResult {
  std::string name;
  std::string question;
  std::string compare;
  std::vector<std::string> metrics;
  uint32_t rounds = 0;
  uint32_t warm_up = 0;
  uint64_t seed = 0;
  bool interrupted = false;
  MachineFacts machine;
  std::vector<CellResult> cells;
};

// What is shown of every cell, and how to read it.
struct MetricInfo {
  std::string_view name;   // In a sample.
  std::string_view title;  // For people, with the unit.
  double unit = 1;         // A value is divided by it.
  bool more_is_better = false;
};
std::vector<MetricInfo> shown_metrics(const ExperimentResult& result);

// The rounds' values of a metric; only rounds that count and have it.
std::vector<double> values_of(const CellResult& cell, std::string_view metric);
// How this cell does beside another, in the rounds that both have. Nothing when there is none.
std::optional<Interval> paired_ratio(const CellResult& one, const CellResult& other,
                                     std::string_view metric);

// The cell with which `cell` is compared: its group's baseline. Null when it is that itself, or
// there is none.
const CellResult* baseline_of(const ExperimentResult& result, const CellResult& cell);
// How far apart two measurements of the same lie in this group (A/A), as a part: 0.05 is 5 %.
// Nothing without pairs.
std::optional<double> group_spread(const ExperimentResult& result, std::string_view group,
                                   std::string_view metric);

enum class Verdict : uint8_t { kMore, kLess, kWithinSpread, kUnknown };
// A difference counts when the interval leaves 1 out and the ratio is further from 1 than the
// spread. kUnknown with fewer than 3 rounds or without a spread.
Verdict judge(const Interval& ratio, std::optional<double> spread, size_t rounds);

// All of a cell's latencies; nothing when it brought none.
std::optional<loop::LatencyHistogram> latency_of(const CellResult& cell);
std::string first_failure(const CellResult& cell);  // Empty: none.

// JSON for later comparisons, and back. kInvalidArgument for what is no such JSON.
std::string experiment_json(const ExperimentResult& result);
loop::Result<ExperimentResult> parse_experiment_json(std::string_view json);

}  // namespace skiff::vmm
