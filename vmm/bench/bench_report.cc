// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/bench_report.h"

#include <spdlog/fmt/fmt.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "block/adaptive/adaptive_counters.h"
#include "loop/latency_histogram.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/histogram_text.h"

namespace skiff::vmm {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kByTracepoint = "tracepoint raw_syscalls:sys_enter";
constexpr const char* kByLoops = "event loops only";

double us(double nanoseconds) { return nanoseconds / 1e3; }
double us(int64_t nanoseconds) { return us(static_cast<double>(nanoseconds)); }

std::string heading(const DiskBenchOptions& options) {
  std::string text =
      fmt::format("{}: {}, {} bytes, depth {}, {} job{}{}", options.path,
                  pattern_name(options.pattern), options.block_bytes, options.depth, options.jobs,
                  options.jobs == 1 ? "" : "s", options.direct ? ", direct" : "");
  if (options.rate != 0) text += fmt::format(", {} I/Os a second", options.rate);
  text += fmt::format(", {:g} s{}\n", static_cast<double>(options.duration_ns) / 1e9,
                      options.rounds > 1 ? fmt::format(" in {} rounds", options.rounds) : "");
  return text;
}

std::string row(const DiskBenchOptions& options, const EngineResult& result) {
  const EngineSummary summary = summarise(result);
  const loop::LatencyHistogram& latency = summary.latency;
  const std::string syscalls =
      summary.syscalls_per_io && result.syscalls
          ? fmt::format("{}{:.3f}", result.syscalls->all ? "" : ">=", *summary.syscalls_per_io)
          : "?";
  return fmt::format(
      "{:<10} {:>10.0f} {:>9.1f}  {:>8.1f} {:>8.1f} {:>8.1f} {:>8.1f} {:>9.1f}  {:>8.2f} {:>8} "
      "{:>8.3f}\n",
      result.engine, summary.iops.median,
      summary.iops.median * static_cast<double>(options.block_bytes) / (1 << 20),
      us(latency.mean_ns()), us(latency.percentile_ns(50)), us(latency.percentile_ns(99)),
      us(latency.percentile_ns(99.9)), us(latency.max_ns()), us(summary.cpu_ns_per_io), syscalls,
      summary.switches_per_io);
}

// What the rounds were apart, and one engine beside the first.
std::string comparison(std::span<const EngineResult> results) {
  std::string text;
  for (size_t i = 0; i < results.size(); ++i) {
    const EngineSummary summary = summarise(results[i]);
    if (results[i].rounds.size() < 2) continue;
    text += fmt::format("{:<10} IOPS of the rounds {:.0f} to {:.0f}", results[i].engine,
                        summary.iops.least, summary.iops.most);
    if (i != 0) {
      const Spread ratio = ratio_of(results[i], results[0]);
      text += fmt::format("; {:.3f} times {} ({:.3f} to {:.3f})", ratio.median, results[0].engine,
                          ratio.least, ratio.most);
    }
    text += '\n';
  }
  return text;
}

// What engine auto did, in all rounds.
block::AdaptiveTotals choices_of(const EngineResult& result) {
  block::AdaptiveTotals sum;
  for (const RoundSample& round : result.rounds) sum.add(round.chosen);
  return sum;
}

std::string notes(const DiskBenchOptions& options, std::span<const EngineResult> results) {
  std::string text;
  bool all_syscalls = true;
  for (const EngineResult& result : results) {
    const EngineSummary summary = summarise(result);
    if (result.syscalls && !result.syscalls->all) all_syscalls = false;
    if (summary.missed != 0) {
      text +=
          fmt::format("{}: {} I/Os were due at the end and not sent: it cannot do {} a second\n",
                      result.engine, summary.missed, options.rate);
    }
    if (const auto chosen = choices_of(result); chosen.requests() != 0) {
      const auto percent = [&](uint64_t part) {
        return 100 * static_cast<double>(part) / static_cast<double>(chosen.requests());
      };
      text += fmt::format(
          "{}: {:.1f} % by a blocking call, {:.1f} % alone on the ring, {:.1f} % beside others on "
          "it, {:.1f} % on workers; {:.2f} % to learn, {} changes of mind\n",
          result.engine, percent(chosen.inline_calls), percent(chosen.ring_waits),
          percent(chosen.ring_asyncs), percent(chosen.pool_calls), percent(chosen.explored),
          chosen.revisions);
    }
    if (summary.share_latency.count() != 0) {
      const loop::LatencyHistogram& share = summary.share_latency;
      text += fmt::format(
          "{}: stream beside it, {} a second on each job's thread: mean {:.1f}, p50 {:.1f}, p99 "
          "{:.1f}, p99.9 {:.1f}, max {:.1f} us\n",
          result.engine, options.share_rate, us(share.mean_ns()), us(share.percentile_ns(50)),
          us(share.percentile_ns(99)), us(share.percentile_ns(99.9)), us(share.max_ns()));
    }
  }
  if (!all_syscalls)
    text +=
        "System calls: only those of the event loops; to count all of them, run as root with "
        "tracefs mounted\n";
  return text;
}

Json latency_json(const loop::LatencyHistogram& latency) {
  return {{"mean", latency.mean_ns()},
          {"p50", latency.percentile_ns(50)},
          {"p99", latency.percentile_ns(99)},
          {"p999", latency.percentile_ns(99.9)},
          {"max", latency.max_ns()}};
}

Json choices_json(const block::AdaptiveTotals& chosen) {
  return {{"inline", chosen.inline_calls},         {"ring_wait", chosen.ring_waits},
          {"ring_async", chosen.ring_asyncs},      {"pool", chosen.pool_calls},
          {"nowait_misses", chosen.nowait_misses}, {"explored", chosen.explored},
          {"revisions", chosen.revisions},         {"regrets", chosen.regrets},
          {"submit_stalls", chosen.submit_stalls}};
}

Json round_json(const RoundSample& round) {
  return {{"iops", round.iops()},
          {"seconds", round.seconds},
          {"reads", round.reads},
          {"writes", round.writes},
          {"cpu_ns", round.cpu_ns},
          {"context_switches", round.context_switches},
          {"lat_ns", latency_json(round.latency)}};
}

Json engine_json(const DiskBenchOptions& options, const EngineResult& result) {
  const EngineSummary summary = summarise(result);
  Json object = {
      {"engine", result.engine},
      {"path", options.path},
      {"rw", pattern_name(options.pattern)},
      {"bs", options.block_bytes},
      {"depth", options.depth},
      {"jobs", options.jobs},
      {"direct", options.direct},
      {"ios", summary.latency.count()},
      {"iops", summary.iops.median},
      {"bytes_per_second", summary.iops.median * static_cast<double>(options.block_bytes)},
      {"read_share", summary.read_share},
      {"lat_ns", latency_json(summary.latency)},
      {"histogram_ns", histogram_text(summary.latency)},
      {"cpu_ns_per_io", summary.cpu_ns_per_io},
      {"switches_per_io", summary.switches_per_io}};
  if (summary.syscalls_per_io && result.syscalls) {
    object["syscalls_per_io"] = *summary.syscalls_per_io;
    object["syscalls_counted_by"] = result.syscalls->all ? kByTracepoint : kByLoops;
  }
  if (options.rate != 0) {
    object["rate"] = options.rate;
    object["missed"] = summary.missed;
  }
  if (options.share_rate != 0) {
    object["share_rate"] = options.share_rate;
    object["share_lat_ns"] = latency_json(summary.share_latency);
  }
  if (const auto chosen = choices_of(result); chosen.requests() != 0)
    object["chosen"] = choices_json(chosen);
  object["rounds"] = Json::array();
  for (const RoundSample& round : result.rounds) object["rounds"].push_back(round_json(round));
  return object;
}

}  // namespace

std::string bench_table(const DiskBenchOptions& options, std::span<const EngineResult> results) {
  std::string text = heading(options);
  text += fmt::format("{:<10} {:>10} {:>9}  {:>8} {:>8} {:>8} {:>8} {:>9}  {:>8} {:>8} {:>8}\n",
                      "engine", "IOPS", "MiB/s", "mean us", "p50", "p99", "p99.9", "max", "CPU us",
                      "syscalls", "switches");
  for (const EngineResult& result : results) text += row(options, result);
  return text + comparison(results) + notes(options, results);
}

std::string bench_json(const DiskBenchOptions& options, std::span<const EngineResult> results) {
  Json array = Json::array();
  for (const EngineResult& result : results) array.push_back(engine_json(options, result));
  // A path is any bytes.
  return array.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace skiff::vmm
