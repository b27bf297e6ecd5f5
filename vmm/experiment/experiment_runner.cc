// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/experiment_runner.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "vmm/experiment/cell_sample.h"
#include "vmm/experiment/child_command.h"
#include "vmm/experiment/experiment_plan.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/host_usage.h"

namespace skiff::vmm {
namespace {

// Seldom enough not to be seen in what is measured: it reads a file for each process of the host.
constexpr int64_t kUsagePeriodNs = 500'000'000;
constexpr uint32_t kFailuresInARow = 2;

// The last line of what a child complained of that says more than how to get help.
std::string last_words(const std::string& errors) {
  std::string last;
  std::istringstream lines(errors);
  for (std::string line; std::getline(lines, line);)
    if (!line.empty() && !line.starts_with("Try: ")) last = line;
  return last;
}

// Why what this child gave does not count; empty when it does.
std::string failure_of(const ChildOutcome& outcome) {
  const std::string last = last_words(outcome.err);
  if (outcome.timed_out) return "It took longer than the experiment's \"timeout\"";
  if (outcome.too_long) return "It wrote more than 32 MiB";
  if (outcome.status == 0) return "";
  return fmt::format("Exit status {}{}{}", outcome.status, last.empty() ? "" : ": ", last);
}

uint32_t failures_in_a_row(const CellResult& result) {
  uint32_t count = 0;
  for (auto round = result.rounds.rbegin(); round != result.rounds.rend(); ++round, ++count)
    if (round->sample || round->failure.empty()) break;
  return count;
}

}  // namespace

ExperimentRunner::ExperimentRunner(loop::EventLoop& loop, std::vector<ExperimentCell> cells,
                                   Options options,
                                   std::function<void(const ExperimentProgress&)> on_progress)
    : loop_(loop),
      options_(std::move(options)),
      on_progress_(std::move(on_progress)),
      usage_timer_(loop, loop::Priority::kService, [this] { watch_usage(); }) {
  for (ExperimentCell& cell : cells) results_.push_back({std::move(cell), {}});
  total_ = static_cast<uint32_t>(results_.size()) * (options_.rounds + options_.warm_up);
}

std::vector<CellResult> ExperimentRunner::run() {
  const auto count = static_cast<uint32_t>(results_.size());
  for (uint32_t turn = 0; turn < options_.warm_up + options_.rounds && !interrupted_; ++turn) {
    for (const uint32_t index : round_order(options_.seed, turn, count)) {
      if (interrupted_) break;
      CellResult& result = results_[index];
      if (failures_in_a_row(result) < kFailuresInARow)
        measure(result, turn < options_.warm_up ? 0 : turn - options_.warm_up + 1);
      ++done_;
    }
  }
  // Warm-up counts for nothing; that it failed is worth knowing.
  for (CellResult& result : results_)
    std::erase_if(result.rounds,
                  [](const CellRound& round) { return round.round == 0 && round.failure.empty(); });
  return std::move(results_);
}

void ExperimentRunner::interrupt() {
  interrupted_ = true;
  for (const auto& child : children_) child->end();
}

std::vector<std::string> ExperimentRunner::words_of(const ExperimentCell& cell) const {
  std::vector<std::string> words = cell.words;
  if (cell.own_program) words.insert(words.begin(), options_.program);
  return words;
}

void ExperimentRunner::measure(CellResult& result, uint32_t round) {
  report(result, "");
  const HostCpuTime cpu_at_begin = HostCpuTime::now();
  const std::vector<std::string> words = words_of(result.cell);
  CellRound outcome;
  outcome.round = round;
  most_ = {};
  uint32_t running = 0;
  for (uint32_t i = 0; i < result.cell.copies && outcome.failure.empty(); ++i) {
    auto child = ChildCommand::start(loop_, words, options_.timeout_ns, [&](ChildCommand& ended) {
      groups_.erase(ended.pid());
      outcome.wall_ns = std::max(outcome.wall_ns, ended.outcome().wall_ns);
      if (--running == 0) loop_.stop();
    });
    if (!child) {
      outcome.failure = child.error().message();
      for (const auto& started : children_) started->end();
      break;
    }
    ++running;
    groups_.insert((*child)->pid());
    children_.push_back(*std::move(child));
  }
  if (result.cell.is_fleet) usage_timer_.arm_after(kUsagePeriodNs);
  if (running != 0) loop_.run();
  usage_timer_.cancel();
  outcome.steal_percent = HostCpuTime::now().steal_percent_since(cpu_at_begin);
  // A cell that was cut short says nothing.
  if (!interrupted_) {
    judge(outcome);
    result.rounds.push_back(std::move(outcome));
  }
  children_.clear();
  if (!interrupted_) {
    const CellRound& last = result.rounds.back();
    ++done_;
    report(result, last.sample ? fmt::format("{:.0f} IOPS", last.sample->metrics.at("iops"))
                               : last.failure);
    --done_;
  }
}

void ExperimentRunner::judge(CellRound& outcome) const {
  std::vector<CellSample> samples;
  for (const auto& child : children_) {
    if (!outcome.failure.empty()) return;
    outcome.failure = failure_of(child->outcome());
    if (!outcome.failure.empty()) return;
    auto sample = parse_bench_output(child->outcome().out);
    if (!sample) {
      outcome.failure = sample.error().message();
      return;
    }
    samples.push_back(*std::move(sample));
  }
  if (samples.empty()) return;
  outcome.sample = samples.size() == 1 ? std::move(samples.front()) : sum_of_copies(samples);
  if (most_.threads != 0) {
    outcome.sample->metrics["threads"] = static_cast<double>(most_.threads);
    outcome.sample->metrics["anonymous_bytes"] = static_cast<double>(most_.anonymous_bytes);
  }
  if (options_.steal_percent_max && outcome.steal_percent > *options_.steal_percent_max) {
    outcome.set_aside = true;
    outcome.failure =
        fmt::format("{:.1f} % of the host's CPU time was stolen meanwhile", outcome.steal_percent);
  }
}

void ExperimentRunner::watch_usage() {
  const GroupUsage usage = usage_of_groups(groups_);
  most_.threads = std::max(most_.threads, usage.threads);
  most_.anonymous_bytes = std::max(most_.anonymous_bytes, usage.anonymous_bytes);
  usage_timer_.arm_after(kUsagePeriodNs);
}

void ExperimentRunner::report(const CellResult& result, const std::string& outcome) {
  if (!on_progress_) return;
  on_progress_({.cell = result.cell.name,
                .outcome = outcome,
                .done = done_,
                .total = total_,
                .seconds_left = seconds_left()});
}

// What each cell has taken, for the rounds that it has left; others take the mean of those.
std::optional<double> ExperimentRunner::seconds_left() const {
  const double turns = options_.rounds + options_.warm_up;
  double known = 0;
  double sum = 0;
  double left = 0;
  for (const CellResult& result : results_) {
    if (result.rounds.empty()) continue;
    const double seconds = static_cast<double>(result.rounds.back().wall_ns) / 1e9;
    known += 1;
    sum += seconds;
    if (failures_in_a_row(result) < kFailuresInARow)
      left += seconds * (turns - static_cast<double>(result.rounds.size()));
  }
  if (known == 0) return std::nullopt;
  return left + (static_cast<double>(results_.size()) - known) * turns * sum / known;
}

}  // namespace skiff::vmm
