// SPDX-License-Identifier: GPL-2.0-or-later
// ExperimentOptions: what `skiff experiment` is asked to do.
//
// The words come from the command line as they were typed; parse_experiment_words() gives them
// their meaning. Thread: any; value types and a pure function.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "loop/result.h"
#include "vmm/experiment/simulator/simulation_options.h"

namespace skiff::vmm {

struct ExperimentOptions {
  enum class Task : uint8_t { kRun, kList, kCompare, kSimulate };
  Task task = Task::kRun;
  std::string path;  // Of the experiment.
  std::string
      out;  // Results go to this with .html and .json. Empty: named after experiment and time.
  std::optional<uint32_t> rounds;  // Instead of the file's, as the next two.
  std::optional<uint64_t> seed;
  std::string duration;
  std::map<std::string, std::string> files;  // To be used instead of making them.
  std::string before;                        // kCompare.
  std::string after;
  SimulationOptions simulation;  // kSimulate.
};

// As typed. Empty: not given.
struct ExperimentWords {
  std::string path;
  std::string out;
  std::string rounds;
  std::string seed;
  std::string duration;
  std::vector<std::string> files;
  bool list = false;
  std::vector<std::string> compare;
  std::string simulate;
  std::string costs;
};

// Errors (kInvalidArgument) name the option, its value and what is allowed.
loop::Result<ExperimentOptions> parse_experiment_words(const ExperimentWords& words);

}  // namespace skiff::vmm
