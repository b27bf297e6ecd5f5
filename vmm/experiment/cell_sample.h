// SPDX-License-Identifier: GPL-2.0-or-later
// CellSample: the numbers of one measurement, as a child printed them.
//
// Thread: any; value types and pure functions.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "loop/latency_histogram.h"
#include "loop/result.h"

namespace skiff::vmm {

struct CellSample {
  // By name: "iops", "lat_ns.p99", "cpu_ns_per_io": every number that the child printed.
  std::map<std::string, double> metrics;
  // Nothing when the child printed no `histogram_ns`.
  std::optional<loop::LatencyHistogram> latency;
};

// JSON as `skiff bench disk --json` prints it: a list with one result, or an object with it in
// `results` or `guests`. A result has at least `iops`; what it has `_per_request` is found as
// `_per_io`. kInvalidArgument says what is missing, or the result's own `error`.
loop::Result<CellSample> parse_bench_output(std::string_view json);

// Of children that ran at the same time: rates add up, latencies are those of all requests, the
// rest is the mean weighted by requests. With `fairness.min_share` (the slowest child's part of the
// mean rate) and `fairness.jain` (1: all alike, 1/n: one has everything).
CellSample sum_of_copies(std::span<const CellSample> samples);

}  // namespace skiff::vmm
