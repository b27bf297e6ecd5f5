// SPDX-License-Identifier: GPL-2.0-or-later
// An experiment's result as JSON, and back.
#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/latency_histogram.h"
#include "loop/result.h"
#include "vmm/bench/histogram_text.h"
#include "vmm/bench/statistics.h"
#include "vmm/experiment/cell_sample.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/json_keys.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Json = OrderedJson;

constexpr uint64_t kFormat = 1;
constexpr size_t kTextBytesMax = 65536;
constexpr double kNumberMax = 1e300;

Json round_json(const CellRound& round) {
  Json object = {
      {"round", round.round}, {"steal_percent", round.steal_percent}, {"wall_ns", round.wall_ns}};
  if (round.set_aside) object["set_aside"] = true;
  if (!round.failure.empty()) object["failure"] = round.failure;
  if (!round.sample) return object;
  object["metrics"] = Json::object();
  for (const auto& [name, value] : round.sample->metrics) object["metrics"][name] = value;
  if (round.sample->latency) object["histogram_ns"] = histogram_text(*round.sample->latency);
  return object;
}

// For readers of the JSON; it is worked out again when it is read back.
Json summary_json(const ExperimentResult& result, const CellResult& cell) {
  Json summary = Json::object();
  for (const MetricInfo& info : shown_metrics(result)) {
    const std::vector<double> values = values_of(cell, info.name);
    if (values.empty()) continue;
    const Interval interval = median_interval(values);
    summary[std::string(info.name)] = {
        {"median", interval.middle}, {"low", interval.low}, {"high", interval.high}};
  }
  return summary;
}

Json cell_json(const ExperimentResult& result, const CellResult& one) {
  const ExperimentCell& cell = one.cell;
  Json options = Json::object();
  for (const auto& [option, value] : cell.options) options[option] = value;
  Json rounds = Json::array();
  for (const CellRound& round : one.rounds) rounds.push_back(round_json(round));
  return {{"run", cell.run},       {"name", cell.name},
          {"options", options},    {"words", cell.words},
          {"copies", cell.copies}, {"fleet", cell.is_fleet},
          {"group", cell.group},   {"baseline", cell.is_baseline},
          {"twin", cell.is_twin},  {"summary", summary_json(result, one)},
          {"rounds", rounds}};
}

Result<bool> take_text(std::string& target, const Json& value) {
  if (!value.is_string() || value.get_ref<const std::string&>().size() > kTextBytesMax)
    return false;
  target = value.get<std::string>();
  return true;
}

Result<bool> take_flag(bool& target, const Json& value) {
  if (!value.is_boolean()) return false;
  target = value.get<bool>();
  return true;
}

template <typename T>
Result<bool> take_uint(T& target, const Json& value, uint64_t max) {
  const auto number = json_uint(value, 0, max);
  if (number) target = static_cast<T>(*number);
  return number.has_value();
}

Result<bool> take_metrics(CellRound& round, const Json& value) {
  if (!value.is_object()) return false;
  round.sample.emplace();
  for (const auto& [name, number] : value.items()) {
    const auto taken = json_number(number, -kNumberMax, kNumberMax);
    if (!taken) return false;
    round.sample->metrics[name] = *taken;
  }
  return true;
}

Result<CellRound> parse_round(const std::string& where, const Json& object) {
  if (!object.is_object()) return json_refusal(where, object, "an object");
  CellRound round;
  std::optional<loop::LatencyHistogram> latency;
  const std::vector<JsonKey> keys = {
      {"round", "a number", [&](const Json& v) { return take_uint(round.round, v, UINT32_MAX); }},
      {"steal_percent", "a number",
       [&](const Json& v) -> Result<bool> {
         const auto taken = json_number(v, 0, 100);
         round.steal_percent = taken.value_or(0);
         return taken.has_value();
       }},
      {"wall_ns", "a number",
       [&](const Json& v) { return take_uint(round.wall_ns, v, INT64_MAX); }},
      {"set_aside", "true or false", [&](const Json& v) { return take_flag(round.set_aside, v); }},
      {"failure", "a text", [&](const Json& v) { return take_text(round.failure, v); }},
      {"metrics", "an object of numbers", [&](const Json& v) { return take_metrics(round, v); }},
      {"histogram_ns", "a histogram", [&](const Json& v) -> Result<bool> {
         if (v.is_string()) latency = parse_histogram_text(v.get<std::string>());
         return latency.has_value();
       }}};
  SKIFF_RETURN_IF_ERROR(apply_json_keys(where + ".", object, keys));
  if (round.sample) round.sample->latency = std::move(latency);
  return round;
}

Result<bool> take_options(ExperimentCell& cell, const Json& value) {
  if (!value.is_object()) return false;
  for (const auto& [option, text] : value.items()) {
    if (!text.is_string()) return false;
    cell.options.emplace_back(option, text.get<std::string>());
  }
  return true;
}

Result<bool> take_texts(std::vector<std::string>& target, const Json& value) {
  if (!value.is_array()) return false;
  for (const Json& text : value) {
    if (!text.is_string()) return false;
    target.push_back(text.get<std::string>());
  }
  return true;
}

Result<CellResult> parse_cell(const std::string& where, const Json& object) {
  if (!object.is_object()) return json_refusal(where, object, "an object");
  CellResult one;
  ExperimentCell& cell = one.cell;
  const auto rounds = [&](const Json& list) -> Result<bool> {
    if (!list.is_array()) return false;
    for (const Json& value : list) {
      auto round = parse_round(where + ".rounds", value);
      if (!round) return round.error();
      one.rounds.push_back(*std::move(round));
    }
    return true;
  };
  const std::vector<JsonKey> keys = {
      {"run", "a text", [&](const Json& v) { return take_text(cell.run, v); }},
      {"name", "a text", [&](const Json& v) { return take_text(cell.name, v); }},
      {"options", "an object of texts", [&](const Json& v) { return take_options(cell, v); }},
      {"words", "a list of texts", [&](const Json& v) { return take_texts(cell.words, v); }},
      {"copies", "a number", [&](const Json& v) { return take_uint(cell.copies, v, UINT32_MAX); }},
      {"fleet", "true or false", [&](const Json& v) { return take_flag(cell.is_fleet, v); }},
      {"group", "a text", [&](const Json& v) { return take_text(cell.group, v); }},
      {"baseline", "true or false", [&](const Json& v) { return take_flag(cell.is_baseline, v); }},
      {"twin", "true or false", [&](const Json& v) { return take_flag(cell.is_twin, v); }},
      {"summary", "an object", [](const Json& v) -> Result<bool> { return v.is_object(); }},
      {"rounds", "a list", rounds}};
  SKIFF_RETURN_IF_ERROR(apply_json_keys(where + ".", object, keys));
  return one;
}

Result<bool> take_machine(MachineFacts& machine, const Json& value) {
  if (!value.is_object()) return false;
  for (const auto& [name, text] : value.items()) {
    if (!text.is_string()) return false;
    machine.emplace_back(name, text.get<std::string>());
  }
  return true;
}

Result<bool> take_cells(ExperimentResult& result, const Json& list) {
  if (!list.is_array()) return false;
  for (size_t i = 0; i < list.size(); ++i) {
    auto cell = parse_cell(fmt::format("cells[{}]", i), list[i]);
    if (!cell) return cell.error();
    result.cells.push_back(*std::move(cell));
  }
  return true;
}

}  // namespace

std::string experiment_json(const ExperimentResult& result) {
  Json machine = Json::object();
  for (const auto& [name, text] : result.machine) machine[name] = text;
  Json cells = Json::array();
  for (const CellResult& cell : result.cells) cells.push_back(cell_json(result, cell));
  const Json root = {{"skiff_experiment", kFormat},
                     {"name", result.name},
                     {"question", result.question},
                     {"compare", result.compare},
                     {"metrics", result.metrics},
                     {"rounds", result.rounds},
                     {"warm_up", result.warm_up},
                     {"seed", result.seed},
                     {"interrupted", result.interrupted},
                     {"machine", machine},
                     {"cells", cells}};
  // What a failing child printed is any bytes.
  return root.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<ExperimentResult> parse_experiment_json(std::string_view json) {
  const auto root = parse_json_object(json);
  if (!root) return root.error();
  ExperimentResult result;
  uint64_t format = 0;
  const std::vector<JsonKey> keys = {
      {"skiff_experiment", "1: results of another version cannot be read",
       [&](const Json& v) -> Result<bool> {
         format = json_uint(v, 0, UINT64_MAX).value_or(0);
         return format == kFormat;
       }},
      {"name", "a text", [&](const Json& v) { return take_text(result.name, v); }},
      {"question", "a text", [&](const Json& v) { return take_text(result.question, v); }},
      {"compare", "a text", [&](const Json& v) { return take_text(result.compare, v); }},
      {"metrics", "a list of texts", [&](const Json& v) { return take_texts(result.metrics, v); }},
      {"rounds", "a number",
       [&](const Json& v) { return take_uint(result.rounds, v, UINT32_MAX); }},
      {"warm_up", "a number",
       [&](const Json& v) { return take_uint(result.warm_up, v, UINT32_MAX); }},
      {"seed", "a number", [&](const Json& v) { return take_uint(result.seed, v, UINT64_MAX); }},
      {"interrupted", "true or false",
       [&](const Json& v) { return take_flag(result.interrupted, v); }},
      {"machine", "an object of texts",
       [&](const Json& v) { return take_machine(result.machine, v); }},
      {"cells", "a list", [&](const Json& v) { return take_cells(result, v); }}};
  // First, so that another kind of file is called that, and not by its first strange key.
  if (!root->contains("skiff_experiment"))
    return Error(ErrorKind::kInvalidArgument,
                 "This is not the JSON that an experiment wrote (no \"skiff_experiment\")");
  SKIFF_RETURN_IF_ERROR(apply_json_keys("", *root, keys));
  return result;
}

}  // namespace skiff::vmm
