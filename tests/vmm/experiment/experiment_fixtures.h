// SPDX-License-Identifier: GPL-2.0-or-later
// Results of an experiment, made up.
//
// Thread: the test's.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {

// A cell of group "g" with these IOPS in rounds 1, 2, ...; its latencies are 1e9 / IOPS.
inline CellResult made_cell(const std::string& name, const std::vector<double>& iops) {
  CellResult cell;
  cell.cell.run = "r";
  cell.cell.name = name;
  cell.cell.options = {{"engine", name}};
  cell.cell.words = {"bench", "disk", "null:"};
  cell.cell.group = "g";
  uint32_t number = 0;
  for (const double one : iops) {
    CellRound round;
    round.round = ++number;
    round.wall_ns = 1000;
    round.sample.emplace();
    round.sample->metrics = {{"iops", one}, {"lat_ns.p50", 1e9 / one}};
    round.sample->latency.emplace();
    round.sample->latency->record_many(static_cast<int64_t>(1e9 / one), 1000);
    cell.rounds.push_back(std::move(round));
  }
  return cell;
}

// "slow", once more (4 % apart at most), and "fast", of which each has five rounds.
inline ExperimentResult made_result() {
  ExperimentResult result;
  result.name = "made";
  result.question = "Is <fast> faster & why?";
  result.compare = "engine";
  result.rounds = 5;
  result.seed = 42;
  result.machine = {{"CPU", "Made-up \"CPU\""}, {"Kernel", "Linux 0.01"}};
  result.cells = {made_cell("slow", {100, 101, 99, 100, 102}),
                  made_cell("slow", {102, 99, 100, 103, 100}),
                  made_cell("fast", {200, 205, 195, 201, 199})};
  result.cells[0].cell.is_baseline = true;
  result.cells[1].cell.is_twin = true;
  return result;
}

inline CellRound failed_round(uint32_t number, const std::string& why) {
  CellRound round;
  round.round = number;
  round.failure = why;
  return round;
}

}  // namespace skiff::vmm
