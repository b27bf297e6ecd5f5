// SPDX-License-Identifier: GPL-2.0-or-later
// ExperimentRunner: measures cells in rounds, each round in another order, one cell at a time.
//
// A cell that fails is noted in its place, and the rest goes on; one that fails twice in a row is
// given up. Thread: the main thread, which turns `loop` while it waits; the loop is not turned by
// others. Ownership: borrows the loop; owns the children.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "vmm/experiment/cell_sample.h"
#include "vmm/experiment/child_command.h"
#include "vmm/experiment/experiment_plan.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/host_usage.h"

namespace skiff::vmm {

struct ExperimentProgress {
  std::string cell;
  std::string outcome;  // Once it has ended: a rate, or why there is none.
  uint32_t done = 0;    // Measurements, of `total`, warm-up included.
  uint32_t total = 0;
  std::optional<double> seconds_left;  // Nothing before anything is known.
};

class ExperimentRunner {
 public:
  struct Options {
    std::string program;  // This one, for cells that are its own.
    uint32_t rounds = 5;
    uint32_t warm_up = 1;
    uint64_t seed = 1;
    int64_t timeout_ns = 120'000'000'000;
    std::optional<double> steal_percent_max;
  };

  // `on_progress` is called when a cell begins and when it has ended.
  ExperimentRunner(loop::EventLoop& loop, std::vector<ExperimentCell> cells, Options options,
                   std::function<void(const ExperimentProgress&)> on_progress);

  // Blocks, turning the loop. After interrupt(): what was measured until then.
  std::vector<CellResult> run();
  // In a callback of the loop: ends the present cell, which does not count, and starts no other.
  void interrupt();
  bool was_interrupted() const { return interrupted_; }

 private:
  void measure(CellResult& result, uint32_t round);
  void judge(CellRound& outcome) const;
  void watch_usage();
  std::vector<std::string> words_of(const ExperimentCell& cell) const;
  void report(const CellResult& result, const std::string& outcome);
  std::optional<double> seconds_left() const;

  loop::EventLoop& loop_;
  const Options options_;
  const std::function<void(const ExperimentProgress&)> on_progress_;
  std::vector<CellResult> results_;
  std::vector<std::unique_ptr<ChildCommand>> children_;
  std::set<pid_t> groups_;  // Of the children that run.
  GroupUsage most_;         // That was seen of them.
  bool interrupted_ = false;
  uint32_t done_ = 0;
  uint32_t total_ = 0;
  loop::Timer usage_timer_;
};

}  // namespace skiff::vmm
