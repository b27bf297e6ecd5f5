// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/experiment_options.h"

#include <spdlog/fmt/fmt.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "loop/result.h"
#include "vmm/config/option_text.h"
#include "vmm/experiment/simulator/simulation_options.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

Error refusal(std::string_view option, std::string_view value, std::string_view allowed) {
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("--{} {}: allowed: {}", option, value, allowed));
}

Result<void> take_files(ExperimentOptions& options, const ExperimentWords& words) {
  for (const std::string& text : words.files) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
      return refusal("file", text, "NAME=PATH, NAME one of the experiment's files");
    if (!options.files.emplace(text.substr(0, equals), text.substr(equals + 1)).second)
      return refusal("file", text, "each name once");
  }
  return {};
}

Result<void> take_simulation(ExperimentOptions& options, const ExperimentWords& words) {
  auto simulation = parse_simulation(words.simulate);
  if (!simulation) return simulation.error();
  options.task = ExperimentOptions::Task::kSimulate;
  options.simulation = *std::move(simulation);
  options.simulation.costs_path = words.costs;
  if (options.seed) options.simulation.seed = *options.seed;
  return {};
}

}  // namespace

Result<ExperimentOptions> parse_experiment_words(const ExperimentWords& words) {
  ExperimentOptions options;
  options.path = words.path;
  options.out = words.out;
  options.duration = words.duration;
  if (!words.rounds.empty()) {
    const auto rounds = parse_uint(words.rounds, 1, 1000);
    if (!rounds) return refusal("rounds", words.rounds, "1 to 1000");
    options.rounds = static_cast<uint32_t>(*rounds);
  }
  if (!words.seed.empty()) {
    options.seed = parse_uint(words.seed, 0, UINT64_MAX);
    if (!options.seed) return refusal("seed", words.seed, "a whole number");
  }
  SKIFF_RETURN_IF_ERROR(take_files(options, words));
  const int tasks = static_cast<int>(!words.path.empty()) +
                    static_cast<int>(!words.compare.empty()) +
                    static_cast<int>(!words.simulate.empty());
  if (tasks != 1)
    return Error(
        ErrorKind::kInvalidArgument,
        "experiment: give either a FILE, or --compare BEFORE.json AFTER.json, or --simulate");
  if (!words.costs.empty() && words.simulate.empty())
    return Error(ErrorKind::kInvalidArgument, "--costs: goes with --simulate only");
  if (!words.simulate.empty()) SKIFF_RETURN_IF_ERROR(take_simulation(options, words));
  if (!words.compare.empty()) {
    options.task = ExperimentOptions::Task::kCompare;
    options.before = words.compare.front();
    options.after = words.compare.back();
  } else if (words.list) {
    options.task = ExperimentOptions::Task::kList;
  }
  return options;
}

}  // namespace skiff::vmm
