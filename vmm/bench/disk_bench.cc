// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/disk_bench.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block/io_engine.h"
#include "block/null_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/disk_turn.h"
#include "vmm/bench/overwrite_guard.h"
#include "vmm/bench/resource_usage.h"

namespace skiff::vmm {
namespace {

using loop::Result;

constexpr int64_t kCountingMaxNs = 500'000'000;

bool is_url(const std::string& path) { return path.find("://") != std::string::npos; }

}  // namespace

DiskBench::DiskBench(loop::EventLoop& loop, DiskBenchOptions options,
                     std::function<void(const BenchProgress&)> on_progress)
    : loop_(loop), options_(std::move(options)), on_progress_(std::move(on_progress)) {}

void DiskBench::interrupt() {
  interrupted_ = true;
  if (turn_ != nullptr) turn_->stop();
}

Result<void> DiskBench::guard_data() {
  if (!writes(options_.pattern) || options_.overwrite) return {};
  if (block::NullDevice::is_null_path(options_.path)) return {};
  if (!is_url(options_.path)) return may_overwrite_file(options_.path, options_.size_bytes);
  auto turn = DiskTurn::open(loop_, options_, options_.engines.front());
  if (!turn) return turn.error();
  const StatusWalk::Finding finding = (*turn)->look_for_data();
  if (finding == StatusWalk::Finding::kEmpty) return {};
  return overwrite_refusal(options_.path, finding);
}

Result<std::vector<EngineResult>> DiskBench::run() {
  SKIFF_RETURN_IF_ERROR(guard_data());
  std::vector<EngineResult> results;
  results.reserve(options_.engines.size());
  for (const block::IoEngineKind kind : options_.engines)
    results.push_back({.engine = std::string(block::engine_name(kind))});
  for (uint32_t round = 1; round <= options_.rounds; ++round) {
    // Every second round the other way round, so that nobody always comes after the same.
    for (size_t i = 0; i < results.size() && !interrupted_; ++i) {
      const size_t at = round % 2 == 1 ? i : results.size() - 1 - i;
      SKIFF_RETURN_IF_ERROR(measure(results[at], options_.engines[at], round));
    }
  }
  for (size_t i = 0; i < results.size() && !interrupted_; ++i)
    SKIFF_RETURN_IF_ERROR(count_syscalls(results[i], options_.engines[i]));
  std::erase_if(results, [](const EngineResult& result) { return result.rounds.empty(); });
  return results;
}

Result<void> DiskBench::measure(EngineResult& result, block::IoEngineKind kind, uint32_t round) {
  auto turn = DiskTurn::open(loop_, options_, kind);
  if (!turn) return turn.error().with_context("Engine", result.engine);
  if (interrupted_) return {};
  BenchProgress progress{.engine = result.engine, .round = round, .rounds = options_.rounds};
  uint64_t completed_before = 0;
  double seconds_before = 0;
  DiskTurn::Hooks hooks;
  hooks.on_tick = [&](double seconds, uint64_t completed) {
    const double span = seconds - std::exchange(seconds_before, seconds);
    const uint64_t ios = completed - std::exchange(completed_before, completed);
    progress.seconds = std::max(0.0, seconds);
    progress.iops = static_cast<double>(ios) / std::max(span, 1e-3);
    on_progress_(progress);
  };
  turn_ = turn->get();
  auto outcome = (*turn)->run(options_.duration_ns / options_.rounds, hooks);
  turn_ = nullptr;
  if (!outcome) return outcome.error().with_context("Engine", result.engine);
  const RoundSample& sample = outcome->sample;
  progress.seconds = sample.seconds;
  progress.iops = sample.iops();
  progress.turn_ended = true;
  on_progress_(progress);
  // A turn cut short says less than the whole ones; but better that than nothing.
  const bool wanted = !interrupted_ || (result.rounds.empty() && sample.ios() != 0);
  if (wanted) result.rounds.push_back(sample);
  return {};
}

Result<void> DiskBench::count_syscalls(EngineResult& result, block::IoEngineKind kind) {
  // Before the turn's threads are there: it counts those that come after it.
  auto counter = SyscallCounter::create();
  auto turn = DiskTurn::open(loop_, options_, kind);
  if (!turn) return turn.error().with_context("Engine", result.engine);
  if (interrupted_) return {};
  DiskTurn::Hooks hooks;
  if (counter) {
    hooks.on_begin = [&] { counter->enable(); };
    hooks.on_end = [&] { counter->disable(); };
  }
  turn_ = turn->get();
  auto outcome = (*turn)->run(std::min(options_.duration_ns / 5, kCountingMaxNs), hooks);
  turn_ = nullptr;
  if (!outcome) return outcome.error().with_context("Engine", result.engine);
  if (interrupted_) return {};
  const uint64_t syscalls = counter ? counter->count() : outcome->loop_syscalls;
  result.syscalls = SyscallCount{syscalls, outcome->sample.ios(), counter.has_value()};
  return {};
}

}  // namespace skiff::vmm
