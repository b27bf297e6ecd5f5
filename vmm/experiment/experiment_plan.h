// SPDX-License-Identifier: GPL-2.0-or-later
// ExperimentPlan: what an experiment's file declares, and the cells that follow from it.
//
// The file is JSON; docs/experiments/README.md describes it. Lists among a run's options are
// expanded: each combination of values is a cell, which is measured by a child process of its own.
// Thread: any; value types and pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/result.h"

namespace skiff::vmm {

enum class BenchKind : uint8_t { kDisk, kGuest, kQueues, kCommand };
std::string_view bench_name(BenchKind kind);

// An option and the values that it takes in turn; those of a flag are "true" and "false".
struct ExperimentAxis {
  std::string option;
  std::vector<std::string> values;
  bool is_flag = false;
};

struct ExperimentRun {
  std::string name;
  BenchKind bench = BenchKind::kDisk;
  std::vector<ExperimentAxis> axes;  // As in the file.
  std::vector<std::string> command;  // kCommand: program and arguments, with ${option}.
};

// A file that is made before and removed after the experiment, full of bytes that do not compress.
struct ExperimentFile {
  std::string name;  // ${name} in options.
  uint64_t size_bytes = 0;
  std::string directory;
};

// Which cells are measured twice in each round, to show what the measurement itself is worth.
enum class ExperimentPairs : uint8_t { kNone, kBaseline, kAll };

struct ExperimentPlan {
  std::string name;
  std::string question;
  uint32_t rounds = 5;   // That count.
  uint32_t warm_up = 1;  // Rounds before those.
  uint64_t seed = 1;     // Of the order within the rounds.
  uint32_t timeout_s = 120;
  ExperimentPairs pairs = ExperimentPairs::kBaseline;
  // The option whose values are compared with each other, its first one the baseline; "run" for
  // the runs; empty for none.
  std::string compare;
  std::optional<double> steal_percent_max;  // A measurement with more is set aside.
  std::vector<std::string> metrics;         // Shown beside the usual ones.
  std::vector<ExperimentFile> files;
  std::vector<ExperimentRun> runs;
};

struct ExperimentCell {
  using Label = std::pair<std::string, std::string>;

  std::string run;
  std::string name;            // The run's and the values of what varies: for people.
  std::vector<Label> options;  // All of them.
  std::vector<std::string> words;
  bool own_program = true;  // `words` are for this program; otherwise the first names another.
  uint32_t copies = 1;      // Children at once.
  bool is_fleet = false;    // `copies` was given: threads and memory of the children matter.
  std::string group;        // Cells that differ in nothing but what is compared.
  bool is_baseline = false;
  bool is_twin = false;  // The second measurement of a pair.
};

inline constexpr size_t kExperimentTextBytesMax = size_t{1} << 20;
inline constexpr size_t kExperimentCellsMax = 2000;
inline constexpr uint32_t kExperimentCopiesMax = 256;

// kInvalidArgument names the key, its value and what is allowed.
loop::Result<ExperimentPlan> parse_experiment(std::string_view json);

// The cells in the order of the file, each twin behind its first. `paths` has the path of each of
// the plan's files. kInvalidArgument names the run and what is wrong with its options.
loop::Result<std::vector<ExperimentCell>> expand_experiment(
    const ExperimentPlan& plan, const std::map<std::string, std::string>& paths);

// In which order a round measures `cells` cells: indices, another order in each round, the same for
// the same seed.
std::vector<uint32_t> round_order(uint64_t seed, uint32_t round, uint32_t cells);

}  // namespace skiff::vmm
