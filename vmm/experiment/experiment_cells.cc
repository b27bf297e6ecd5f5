// SPDX-License-Identifier: GPL-2.0-or-later
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/config/option_text.h"
#include "vmm/experiment/experiment_plan.h"
#include "vmm/experiment/random.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Label = ExperimentCell::Label;
using Texts = std::map<std::string, std::string>;

Error refusal(const ExperimentRun& run, std::string_view what) {
  return Error(ErrorKind::kInvalidArgument, fmt::format("Run \"{}\": {}", run.name, what));
}

// `text` with each ${name} replaced.
Result<std::string> replace_names(const ExperimentRun& run, std::string_view text,
                                  const Texts& values) {
  std::string out;
  while (!text.empty()) {
    const size_t begin = text.find("${");
    out += text.substr(0, begin);
    if (begin == std::string_view::npos) break;
    const size_t end = text.find('}', begin);
    if (end == std::string_view::npos)
      return refusal(run, fmt::format("\"{}\": no closing brace", text));
    const std::string name(text.substr(begin + 2, end - begin - 2));
    const auto value = values.find(name);
    if (value == values.end()) {
      std::string known;
      for (const auto& one : values)
        known += fmt::format("{}{}", known.empty() ? "" : ", ", one.first);
      return refusal(run, fmt::format("${{{}}}: unknown name (allowed: {})", name,
                                      known.empty() ? "none here" : known));
    }
    out += value->second;
    text.remove_prefix(end + 1);
  }
  return out;
}

// What an option of `skiff bench disk` is, by its name; null when there is none.
std::string* word_of(DiskBenchWords& words, std::string_view option) {
  const std::array<std::pair<std::string_view, std::string*>, 11> texts = {
      {{"file", &words.path},
       {"rw", &words.rw},
       {"bs", &words.bs},
       {"depth", &words.depth},
       {"jobs", &words.jobs},
       {"engine", &words.engines},
       {"duration", &words.duration},
       {"rate", &words.rate},
       {"share", &words.share},
       {"size", &words.size},
       {"iops", &words.iops}}};
  for (const auto& [name, text] : texts)
    if (name == option) return text;
  return option == "bps" ? &words.bps : nullptr;
}

// The words, checked as the child will check them: better now than after an hour of measuring.
Result<void> check_disk(const ExperimentRun& run, const std::vector<Label>& options) {
  DiskBenchWords words;
  for (const auto& [option, value] : options) {
    if (option == "copies") continue;
    if (option == "direct" || option == "overwrite") {
      if (!parse_switch(value == "true" ? "on" : value == "false" ? "off" : value))
        return refusal(run, fmt::format("{}: \"{}\" (allowed: true or false)", option, value));
      continue;
    }
    std::string* word = word_of(words, option);
    if (word == nullptr)
      return refusal(run,
                     fmt::format("options.{}: unknown key (allowed: file, rw, bs, depth, jobs, "
                                 "engine, duration, rate, share, size, iops, bps, direct, "
                                 "overwrite, copies)",
                                 option));
    *word = value;
  }
  if (words.path.empty()) return refusal(run, "options.file: missing (which disk to measure)");
  const auto parsed = parse_disk_bench(words);
  if (!parsed) return refusal(run, "options: " + parsed.error().message());
  if (parsed->engines.size() != 1)
    return refusal(run, "options.engine: several in one text (give a list of texts instead)");
  return {};
}

class Expansion {
 public:
  Expansion(const ExperimentPlan& plan, const Texts& paths) : plan_(plan), paths_(paths) {
    std::map<std::string, std::set<std::string>> seen;
    for (const ExperimentRun& run : plan.runs)
      for (const ExperimentAxis& axis : run.axes)
        seen[axis.option].insert(axis.values.begin(), axis.values.end());
    for (const auto& [option, values] : seen)
      if (values.size() > 1) varying_.insert(option);
  }

  Result<void> add_run(const ExperimentRun& run) {
    size_t combinations = 1;
    for (const ExperimentAxis& axis : run.axes) {
      combinations *= axis.values.size();
      if (combinations > kExperimentCellsMax) break;
    }
    if (cells_.size() + combinations > kExperimentCellsMax)
      return refusal(run, fmt::format("more than {} cells in all: shorten a list of values",
                                      kExperimentCellsMax));
    std::vector<size_t> at(run.axes.size());
    for (size_t i = 0; i < combinations; ++i) {
      SKIFF_RETURN_IF_ERROR(add_cell(run, at));
      // The last option changes fastest.
      for (size_t axis = run.axes.size(); axis-- > 0;) {
        if (++at[axis] < run.axes[axis].values.size()) break;
        at[axis] = 0;
      }
    }
    return {};
  }

  std::vector<ExperimentCell> finish() {
    std::vector<ExperimentCell> all;
    std::set<std::string> groups;
    for (ExperimentCell& cell : cells_) {
      cell.is_baseline = groups.insert(cell.group).second;
      const bool twin = plan_.pairs == ExperimentPairs::kAll ||
                        (plan_.pairs == ExperimentPairs::kBaseline && cell.is_baseline);
      all.push_back(cell);
      if (!twin) continue;
      all.push_back(std::move(cell));
      all.back().is_twin = true;
      all.back().is_baseline = false;
      all.back().name += " (again)";
    }
    return all;
  }

 private:
  Result<void> add_cell(const ExperimentRun& run, const std::vector<size_t>& at) {
    ExperimentCell cell;
    cell.run = run.name;
    cell.name = run.name;
    // Without a comparison a run's cells belong together.
    std::string group = plan_.compare == "run" ? "" : run.name;
    Texts known = paths_;
    for (size_t i = 0; i < at.size(); ++i) {
      const ExperimentAxis& axis = run.axes[i];
      auto value = replace_names(run, axis.values[at[i]], paths_);
      if (!value) return value.error();
      const std::string& shown = axis.values[at[i]];  // Not the path of a file that is made.
      cell.options.emplace_back(axis.option, shown);
      known[axis.option] = *value;
      if (axis.option == "copies") {
        cell.is_fleet = true;
        cell.copies =
            static_cast<uint32_t>(parse_uint(*value, 1, kExperimentCopiesMax).value_or(1));
      }
      if (!varying_.contains(axis.option)) continue;
      cell.name += fmt::format(", {} {}", axis.option, shown);
      if (!plan_.compare.empty() && axis.option != plan_.compare)
        group += fmt::format(", {} {}", axis.option, shown);
    }
    cell.group = group.starts_with(", ") ? group.substr(2) : group;
    SKIFF_RETURN_IF_ERROR(add_words(cell, run, known));
    cells_.push_back(std::move(cell));
    return {};
  }

  static Result<void> add_words(ExperimentCell& cell, const ExperimentRun& run,
                                const Texts& known) {
    if (run.bench == BenchKind::kCommand) {
      cell.own_program = false;
      for (const std::string& word : run.command) {
        auto replaced = replace_names(run, word, known);
        if (!replaced) return replaced.error();
        cell.words.push_back(*std::move(replaced));
      }
      return {};
    }
    cell.words = {"bench", std::string(bench_name(run.bench))};
    std::vector<Label> options;
    for (const ExperimentAxis& axis : run.axes) {
      const std::string& value = known.at(axis.option);
      options.emplace_back(axis.option, value);
      if (axis.option == "copies" || (axis.is_flag && value == "false")) continue;
      if (axis.option == "file") {
        cell.words.push_back(value);
        continue;
      }
      cell.words.push_back("--" + axis.option);
      if (!axis.is_flag) cell.words.push_back(value);
    }
    cell.words.emplace_back("--json");
    if (run.bench == BenchKind::kDisk) return check_disk(run, options);
    return {};
  }

  const ExperimentPlan& plan_;
  const Texts& paths_;
  std::set<std::string> varying_;
  std::vector<ExperimentCell> cells_;
};

}  // namespace

Result<std::vector<ExperimentCell>> expand_experiment(
    const ExperimentPlan& plan, const std::map<std::string, std::string>& paths) {
  Expansion expansion(plan, paths);
  for (const ExperimentRun& run : plan.runs) SKIFF_RETURN_IF_ERROR(expansion.add_run(run));
  return expansion.finish();
}

std::vector<uint32_t> round_order(uint64_t seed, uint32_t round, uint32_t cells) {
  std::vector<uint32_t> order(cells);
  std::iota(order.begin(), order.end(), 0U);
  Random random(seed * 0x100000001b3U + round);
  for (uint32_t left = cells; left > 1; --left)
    std::swap(order[left - 1], order[random.below(left)]);
  return order;
}

}  // namespace skiff::vmm
