// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/cell_sample.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "loop/latency_histogram.h"
#include "loop/result.h"
#include "vmm/bench/histogram_text.h"
#include "vmm/experiment/json_keys.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Json = OrderedJson;

Error broken(std::string_view what) {
  return Error(ErrorKind::kInvalidArgument, fmt::format("What it printed {}", what));
}

// Guests make requests where engines do I/Os: the same numbers under one name.
std::string common_name(std::string name) {
  constexpr std::string_view kOther = "_per_request";
  if (name.ends_with(kOther)) name.replace(name.size() - kOther.size(), kOther.size(), "_per_io");
  return name;
}

// Numbers of an object, and of the objects in it.
void collect(std::map<std::string, double>& metrics, const std::string& prefix,
             const Json& object) {
  for (const auto& [name, value] : object.items()) {
    if (value.is_number()) {
      const auto number = value.get<double>();
      if (std::isfinite(number)) metrics[common_name(prefix + name)] = number;
    } else if (value.is_object()) {
      collect(metrics, prefix + name + ".", value);
    }
  }
}

// What adds up over children that run at once.
bool is_rate(std::string_view name) {
  return name == "iops" || name == "ios" || name == "bytes_per_second" || name == "missed" ||
         name == "rate";
}

double metric(const CellSample& sample, const std::string& name) {
  const auto found = sample.metrics.find(name);
  return found == sample.metrics.end() ? 0 : found->second;
}

void add_latencies(CellSample& sum, std::span<const CellSample> samples) {
  loop::LatencyHistogram all;
  for (const CellSample& sample : samples) {
    if (!sample.latency) return;
    all.merge(*sample.latency);
  }
  sum.latency = all;
  constexpr std::array<std::pair<const char*, double>, 5> kPercentiles = {
      {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p999", 99.9}, {"max", 100}}};
  for (const auto& [name, percent] : kPercentiles) {
    const std::string key = std::string("lat_ns.") + name;
    if (sum.metrics.contains(key))
      sum.metrics[key] = static_cast<double>(all.percentile_ns(percent));
  }
}

void add_fairness(CellSample& sum, std::span<const CellSample> samples) {
  double total = 0;
  double squares = 0;
  double least = metric(samples.front(), "iops");
  for (const CellSample& sample : samples) {
    const double iops = metric(sample, "iops");
    total += iops;
    squares += iops * iops;
    least = std::min(least, iops);
  }
  if (total <= 0) return;
  const auto count = static_cast<double>(samples.size());
  sum.metrics["fairness.min_share"] = least * count / total;
  sum.metrics["fairness.jain"] = total * total / (count * squares);
}

}  // namespace

Result<CellSample> parse_bench_output(std::string_view json) {
  const auto parsed = parse_json(json);
  if (!parsed) return broken("is not JSON");
  const Json* results = &*parsed;
  for (const char* list : {"results", "guests"}) {
    if (!results->is_object() || !results->contains(list)) continue;
    results = &(*results)[list];
    break;
  }
  if (!results->is_array()) return broken("is neither a list nor an object with \"results\"");
  if (results->size() != 1)
    return broken(
        fmt::format("has {} results; it must have one (lists among an experiment's "
                    "options, not within a value)",
                    results->size()));
  const Json& result = results->front();
  if (result.is_object() && result.contains("error") && result["error"].is_string())
    return broken("says: " + result["error"].get<std::string>());
  if (!result.is_object() || !result.contains("iops") || !result["iops"].is_number())
    return broken("has no number \"iops\"");
  CellSample sample;
  collect(sample.metrics, "", result);
  if (result.contains("histogram_ns")) {
    const Json& text = result["histogram_ns"];
    if (text.is_string()) sample.latency = parse_histogram_text(text.get<std::string>());
    if (!sample.latency) return broken("has a \"histogram_ns\" that is none");
  }
  return sample;
}

CellSample sum_of_copies(std::span<const CellSample> samples) {
  CellSample sum;
  if (samples.empty()) return sum;
  double weights = 0;
  std::map<std::string, double> weighted;
  for (const CellSample& sample : samples) {
    const double weight = std::max(metric(sample, "iops"), 1e-9);
    weights += weight;
    for (const auto& [name, value] : sample.metrics) {
      if (is_rate(name))
        sum.metrics[name] += value;
      else
        weighted[name] += value * weight;
    }
  }
  for (const auto& [name, value] : weighted) sum.metrics[name] = value / weights;
  add_latencies(sum, samples);
  add_fairness(sum, samples);
  return sum;
}

}  // namespace skiff::vmm
