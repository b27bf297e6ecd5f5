// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/experiment_plan.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/units.h"
#include "loop/result.h"
#include "vmm/experiment/json_keys.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Json = OrderedJson;

constexpr std::array<std::pair<std::string_view, BenchKind>, 4> kBenches = {
    {{"disk", BenchKind::kDisk},
     {"guest", BenchKind::kGuest},
     {"queues", BenchKind::kQueues},
     {"command", BenchKind::kCommand}}};
constexpr std::string_view kValueShape =
    "a string, a number, true or false, or a list of up to 200 of one kind without repeats";
constexpr size_t kTextBytesMax = 4096;
constexpr size_t kNameBytesMax = 200;
constexpr size_t kValuesMax = 200;
constexpr size_t kRunsMax = 100;
constexpr size_t kFilesMax = 16;
constexpr uint64_t kFileBytesMin = uint64_t{64} << 10;
constexpr uint64_t kFileBytesMax = uint64_t{64} << 30;
constexpr uint32_t kRoundsMax = 1000;
constexpr uint32_t kTimeoutSecondsMax = 86'400;

std::string path_of(const char* list, size_t index) { return fmt::format("{}[{}].", list, index); }

// As one writes it on a command line. Nothing for what has no such form.
std::optional<std::string> value_text(const Json& value) {
  if (value.is_string()) return json_text(value, kTextBytesMax);
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number_unsigned()) return std::to_string(value.get<uint64_t>());
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  if (!std::isfinite(number)) return std::nullopt;
  return fmt::format("{}", number);
}

Result<ExperimentAxis> parse_axis(const std::string& key, const std::string& option,
                                  const Json& value) {
  ExperimentAxis axis;
  axis.option = option;
  const Json list = value.is_array() ? value : Json::array({value});
  if (list.empty() || list.size() > kValuesMax) return json_refusal(key, value, kValueShape);
  axis.is_flag = list.front().is_boolean();
  for (const Json& one : list) {
    const auto text = value_text(one);
    if (!text || one.is_boolean() != axis.is_flag || std::ranges::count(axis.values, *text) != 0)
      return json_refusal(key, value, kValueShape);
    axis.values.push_back(*text);
  }
  if (option == "copies") {
    for (const Json& one : list) {
      if (!json_uint(one, 1, kExperimentCopiesMax))
        return json_refusal(key, value, fmt::format("1 to {}", kExperimentCopiesMax));
    }
  }
  return axis;
}

Result<bool> parse_options(const std::string& where, ExperimentRun& run, const Json& options) {
  if (!options.is_object()) return false;
  for (const auto& [option, value] : options.items()) {
    const std::string key = fmt::format("{}options.{}", where, option);
    if (!is_plain_name(option))
      return json_refusal(key, value, "names of options as on the command line, without dashes");
    auto axis = parse_axis(key, option, value);
    if (!axis) return axis.error();
    run.axes.push_back(*std::move(axis));
  }
  return true;
}

bool take_words(std::vector<std::string>& target, const Json& value) {
  if (!value.is_array() || value.empty() || value.size() > kValuesMax) return false;
  for (const Json& word : value) {
    auto text = json_text(word, kTextBytesMax);
    if (!text) return false;
    target.push_back(*std::move(text));
  }
  return true;
}

bool take_name(std::string& target, const Json& value) {
  auto text = json_text(value, kNameBytesMax);
  if (!text || text->empty()) return false;
  target = *std::move(text);
  return true;
}

Result<ExperimentRun> parse_run(const std::string& where, const Json& object) {
  if (!object.is_object())
    return json_refusal(where.substr(0, where.size() - 1), object, "an object");
  ExperimentRun run;
  bool has_bench = false;
  const std::vector<JsonKey> keys = {
      {"name", "a text of up to 200 bytes",
       [&](const Json& value) -> Result<bool> { return take_name(run.name, value); }},
      {"bench", "\"disk\", \"guest\", \"queues\" or \"command\"",
       [&](const Json& value) -> Result<bool> {
         if (!value.is_string()) return false;
         const auto name = value.get<std::string>();
         for (const auto& [bench, kind] : kBenches) {
           if (bench != name) continue;
           run.bench = kind;
           has_bench = true;
         }
         return has_bench;
       }},
      {"options", "an object: {\"engine\": [\"sync\", \"io_uring\"], \"depth\": 1}",
       [&](const Json& value) { return parse_options(where, run, value); }},
      {"command", "a list of texts: the program and its arguments",
       [&](const Json& value) -> Result<bool> { return take_words(run.command, value); }}};
  SKIFF_RETURN_IF_ERROR(apply_json_keys(where, object, keys));
  const auto missing = [&](const char* key, const char* why) {
    return Error(ErrorKind::kInvalidArgument, fmt::format("{}{}: {}", where, key, why));
  };
  if (run.name.empty()) return missing("name", "missing (each run has one)");
  if (!has_bench) return missing("bench", "missing (allowed: disk, guest, queues, command)");
  if (run.bench == BenchKind::kCommand && run.command.empty())
    return missing("command", "missing (a run of bench \"command\" has one)");
  if (run.bench != BenchKind::kCommand && !run.command.empty())
    return missing("command", "only a run of bench \"command\" has one");
  return run;
}

Result<ExperimentFile> parse_file(const std::string& name, const Json& object) {
  const std::string where = fmt::format("files.{}.", name);
  if (!is_plain_name(name) || !object.is_object())
    return json_refusal(where.substr(0, where.size() - 1), object,
                        "{\"size\": \"256M\", \"in\": DIRECTORY} under a plain name");
  ExperimentFile file{.name = name, .size_bytes = 0, .directory = "."};
  const std::vector<JsonKey> keys = {
      {"size", "64K to 64G, like \"256M\"",
       [&](const Json& value) -> Result<bool> {
         const auto text = json_text(value, kNameBytesMax);
         const auto size = text ? block::parse_bytes(*text, kFileBytesMax) : std::nullopt;
         if (!size || *size < kFileBytesMin || *size % 4096 != 0) return false;
         file.size_bytes = *size;
         return true;
       }},
      {"in", "the path of a directory",
       [&](const Json& value) -> Result<bool> { return take_name(file.directory, value); }}};
  SKIFF_RETURN_IF_ERROR(apply_json_keys(where, object, keys));
  if (file.size_bytes == 0)
    return Error(ErrorKind::kInvalidArgument, where + "size: missing (like \"256M\")");
  return file;
}

Result<bool> parse_files(ExperimentPlan& plan, const Json& value) {
  if (!value.is_object() || value.size() > kFilesMax) return false;
  for (const auto& [name, object] : value.items()) {
    auto file = parse_file(name, object);
    if (!file) return file.error();
    plan.files.push_back(*std::move(file));
  }
  return true;
}

Result<bool> parse_runs(ExperimentPlan& plan, const Json& value) {
  if (!value.is_array() || value.empty() || value.size() > kRunsMax) return false;
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string where = path_of("runs", i);
    auto run = parse_run(where, value[i]);
    if (!run) return run.error();
    for (const ExperimentRun& other : plan.runs)
      if (other.name == run->name)
        return json_refusal(where + "name", value[i]["name"], "a name that no other run has");
    plan.runs.push_back(*std::move(run));
  }
  return true;
}

JsonKey number_key(std::string_view name, std::string_view allowed, uint32_t& target, uint64_t min,
                   uint64_t max) {
  return {name, allowed, [&target, min, max](const Json& value) -> Result<bool> {
            const auto number = json_uint(value, min, max);
            if (number) target = static_cast<uint32_t>(*number);
            return number.has_value();
          }};
}

bool take_pairs(ExperimentPairs& target, const Json& value) {
  constexpr std::array<std::pair<std::string_view, ExperimentPairs>, 3> kNames = {
      {{"none", ExperimentPairs::kNone},
       {"baseline", ExperimentPairs::kBaseline},
       {"all", ExperimentPairs::kAll}}};
  for (const auto& [name, pairs] : kNames) {
    if (value != name) continue;
    target = pairs;
    return true;
  }
  return false;
}

// The keys of the outermost object.
std::vector<JsonKey> plan_keys(ExperimentPlan& plan) {
  return {{"name", "a plain name of up to 64 letters, digits and dashes",
           [&](const Json& value) -> Result<bool> {
             const bool fits = value.is_string() && is_plain_name(value.get<std::string>());
             if (fits) plan.name = value.get<std::string>();
             return fits;
           }},
          {"question", "a text of up to 4096 bytes",
           [&](const Json& value) -> Result<bool> {
             auto text = json_text(value, kTextBytesMax);
             if (text) plan.question = *text;
             return text.has_value();
           }},
          number_key("rounds", "1 to 1000", plan.rounds, 1, kRoundsMax),
          number_key("warm-up", "rounds, 0 to 100", plan.warm_up, 0, 100),
          {"seed", "a whole number",
           [&](const Json& value) -> Result<bool> {
             const auto seed = json_uint(value, 0, UINT64_MAX);
             if (seed) plan.seed = *seed;
             return seed.has_value();
           }},
          number_key("timeout", "seconds for one measurement, 1 to 86400", plan.timeout_s, 1,
                     kTimeoutSecondsMax),
          {"pairs", "\"none\", \"baseline\" or \"all\"",
           [&](const Json& value) -> Result<bool> { return take_pairs(plan.pairs, value); }},
          {"compare", "the name of an option, or \"run\"",
           [&](const Json& value) -> Result<bool> {
             const bool fits = value.is_string() && is_plain_name(value.get<std::string>());
             if (fits) plan.compare = value.get<std::string>();
             return fits;
           }},
          {"steal-max", "percent, 0 to 100",
           [&](const Json& value) -> Result<bool> {
             plan.steal_percent_max = json_number(value, 0, 100);
             return plan.steal_percent_max.has_value();
           }},
          {"metrics", "a list of texts, like [\"switches_per_io\", \"share_lat_ns.p99\"]",
           [&](const Json& value) -> Result<bool> { return take_words(plan.metrics, value); }},
          {"files", "up to 16, like {\"disk\": {\"size\": \"256M\"}}",
           [&](const Json& value) { return parse_files(plan, value); }},
          {"runs", "a list of 1 to 100 objects",
           [&](const Json& value) { return parse_runs(plan, value); }}};
}

Result<void> check_compare(const ExperimentPlan& plan) {
  if (plan.compare.empty() || plan.compare == "run") return {};
  std::string known;
  for (const ExperimentRun& run : plan.runs) {
    for (const ExperimentAxis& axis : run.axes) {
      if (axis.option == plan.compare) return {};
      known += fmt::format("{}{}", known.empty() ? "" : ", ", axis.option);
    }
  }
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("compare: no run has an option \"{}\" (allowed: run{}{})", plan.compare,
                           known.empty() ? "" : ", ", known));
}

}  // namespace

std::string_view bench_name(BenchKind kind) {
  for (const auto& [name, value] : kBenches)
    if (value == kind) return name;
  return "";
}

Result<ExperimentPlan> parse_experiment(std::string_view json) {
  if (json.size() > kExperimentTextBytesMax)
    return Error(ErrorKind::kInvalidArgument, "Experiment: larger than 1 MiB");
  const auto root = parse_json_object(json);
  if (!root) return root.error();
  ExperimentPlan plan;
  SKIFF_RETURN_IF_ERROR(apply_json_keys("", *root, plan_keys(plan)));
  if (plan.name.empty())
    return Error(ErrorKind::kInvalidArgument, "name: missing (results are called by it)");
  if (plan.runs.empty())
    return Error(ErrorKind::kInvalidArgument, "runs: missing (what is to be measured)");
  SKIFF_RETURN_IF_ERROR(check_compare(plan));
  return plan;
}

}  // namespace skiff::vmm
