// SPDX-License-Identifier: GPL-2.0-or-later
// What a disk benchmark has found, and the few sums over it.
//
// Thread: any; value types and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "block/adaptive/adaptive_counters.h"
#include "loop/latency_histogram.h"

namespace skiff::vmm {

// One engine's turn.
struct RoundSample {
  double seconds = 0;
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t missed = 0;  // With a rate.
  int64_t cpu_ns = 0;
  uint64_t context_switches = 0;
  block::AdaptiveTotals chosen;  // By an engine that chooses, the warm-up included.
  loop::LatencyHistogram latency;
  loop::LatencyHistogram share_latency;  // Of the second stream; empty without one.

  uint64_t ios() const { return reads + writes; }
  double iops() const { return seconds > 0 ? static_cast<double>(ios()) / seconds : 0; }
};

// What was counted while nothing was timed.
struct SyscallCount {
  uint64_t syscalls = 0;
  uint64_t ios = 0;
  // False: only what the event loops themselves have called; engines may have called more.
  bool all = true;
};

struct EngineResult {
  std::string engine;
  std::vector<RoundSample> rounds;
  std::optional<SyscallCount> syscalls;
};

// Middle and ends of what the rounds gave.
struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};
Spread spread_of(std::vector<double> values);  // All 0 when there are none.

struct EngineSummary {
  Spread iops;
  double read_share = 0;  // 0 to 1.
  double cpu_ns_per_io = 0;
  double switches_per_io = 0;
  std::optional<double> syscalls_per_io;
  uint64_t missed = 0;
  loop::LatencyHistogram latency;  // Of all rounds.
  loop::LatencyHistogram share_latency;
};
// Rounds without a single I/O count in nothing but `iops`.
EngineSummary summarise(const EngineResult& result);

// IOPS of `one` in proportion to those of `other`, round by round: both had the same weather.
Spread ratio_of(const EngineResult& one, const EngineResult& other);

}  // namespace skiff::vmm
