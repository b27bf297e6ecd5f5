// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/queues_report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/io_engine.h"
#include "devices/virtio/blk/queue_home.h"
#include "loop/latency_histogram.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/cdf_plot.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/histogram_text.h"
#include "vmm/bench/queues_bench.h"
#include "vmm/bench/queues_options.h"
#include "vmm/bench/thread_usage.h"

namespace skiff::vmm {
namespace {

using Json = nlohmann::ordered_json;

double us(double nanoseconds) { return nanoseconds / 1e3; }
double us(int64_t nanoseconds) { return us(static_cast<double>(nanoseconds)); }

std::string title(const QueuesBenchOptions& options) {
  std::string text =
      fmt::format("{}: {}, {} bytes, {} queue{} of depth {}, {} driver thread{}, {}{}",
                  options.path, pattern_name(options.pattern), options.block_bytes, options.queues,
                  options.queues == 1 ? "" : "s", options.depth, options.threads,
                  options.threads == 1 ? "" : "s", options.irq ? "interrupts" : "polling drivers",
                  options.direct ? ", direct" : "");
  if (options.rate != 0) text += fmt::format(", {} a second on each queue", options.rate);
  return text;
}

struct Summary {
  Spread iops;
  Spread serving_ns;
  double sleeps = 0;
  double kicks = 0;
  double interrupts = 0;
  double batch = 0;
  int64_t behind_ns = 0;
  loop::LatencyHistogram latency;
};

Summary summarise(const QueuesResult& result) {
  const auto spread = [&result](auto value_of) {
    std::vector<double> values;
    values.reserve(result.rounds.size());
    for (const QueuesSample& round : result.rounds) values.push_back(value_of(round));
    return spread_of(std::move(values));
  };
  const auto each = [](uint64_t count, uint64_t requests) {
    return requests == 0 ? 0 : static_cast<double>(count) / static_cast<double>(requests);
  };
  using Sample = const QueuesSample&;
  const bool drivers = result.drivers_serve;
  Summary summary;
  summary.iops = spread([](Sample s) { return s.iops(); });
  summary.serving_ns = spread([&](Sample s) { return s.serving_ns(drivers); });
  summary.sleeps = spread([&](Sample s) { return s.sleeps_of_serving(drivers); }).median;
  summary.kicks = spread([&](Sample s) { return each(s.kicks, s.requests); }).median;
  summary.interrupts = spread([&](Sample s) { return each(s.interrupts, s.requests); }).median;
  summary.batch = spread([&](Sample s) { return each(s.requests, s.batches); }).median;
  for (const QueuesSample& round : result.rounds) {
    summary.latency.merge(round.latency);
    summary.behind_ns = std::max(summary.behind_ns, round.behind_ns);
  }
  return summary;
}

std::string row(const QueuesResult& result) {
  if (result.rounds.empty())
    return fmt::format("{:<28} failed: {}\n", result.name, result.error.value_or(""));
  const Summary summary = summarise(result);
  return fmt::format(
      "{:<28} {:>9.0f} {:>8.1f} {:>8.1f} {:>8.1f} {:>9.1f} {:>9.2f} {:>7.3f} {:>7.3f} {:>7.3f} "
      "{:>8}\n",
      result.name, summary.iops.median, us(summary.latency.mean_ns()),
      us(summary.latency.percentile_ns(50)), us(summary.latency.percentile_ns(99)),
      us(summary.latency.percentile_ns(99.9)), us(summary.serving_ns.median), summary.sleeps,
      summary.kicks, summary.interrupts,
      result.syscalls ? fmt::format("{:.3f}", *result.syscalls) : "?");
}

std::string threads_line(const QueuesResult& result) {
  const QueuesSample& round = result.rounds.back();
  std::string text = result.name + ": CPU us for each request by thread:";
  constexpr int kMost = 8;
  int shown = 0;
  for (const ThreadUsage& thread : round.threads) {
    const double each = round.requests == 0 ? 0
                                            : static_cast<double>(thread.cpu_ns) /
                                                  static_cast<double>(round.requests);
    if (shown++ == kMost || each < 1) break;
    text += fmt::format(" {} {:.2f}", thread.name, us(each));
  }
  return text + "\n";
}

Json thread_json(const ThreadUsage& thread) {
  return {{"name", thread.name},
          {"cpu_ns", thread.cpu_ns},
          {"sleeps", thread.sleeps},
          {"context_switches", thread.context_switches}};
}

Json threads_json(std::span<const ThreadUsage> threads) {
  Json array = Json::array();
  for (const ThreadUsage& thread : threads) array.push_back(thread_json(thread));
  return array;
}

Json result_json(const QueuesBenchOptions& options, const QueuesContestant& contestant,
                 const QueuesResult& result) {
  const Summary summary = summarise(result);
  Json object = {{"name", result.name}};
  if (contestant.socket.empty()) {
    object["submit"] = devices::submit_mode_name(contestant.submit);
    object["engine"] = block::engine_name(contestant.engine);
  } else {
    object["socket"] = contestant.socket;
  }
  if (result.error) object["error"] = *result.error;
  object["iops"] = summary.iops.median;
  object["lat_ns"] = {{"mean", summary.latency.mean_ns()},
                      {"p50", summary.latency.percentile_ns(50)},
                      {"p99", summary.latency.percentile_ns(99)},
                      {"p999", summary.latency.percentile_ns(99.9)},
                      {"max", summary.latency.max_ns()}};
  object["histogram_ns"] = histogram_text(summary.latency);
  object["serving_cpu_ns_per_request"] = summary.serving_ns.median;
  object["serving_cpu_ns_least"] = summary.serving_ns.least;
  object["serving_cpu_ns_most"] = summary.serving_ns.most;
  object["drivers_serve"] = result.drivers_serve;
  object["sleeps_per_request"] = summary.sleeps;
  object["kicks_per_request"] = summary.kicks;
  object["interrupts_per_request"] = summary.interrupts;
  object["requests_per_batch"] = summary.batch;
  if (result.syscalls) object["syscalls_per_request"] = *result.syscalls;
  if (options.rate != 0) object["behind_ns"] = summary.behind_ns;
  object["rounds"] = Json::array();
  for (const QueuesSample& round : result.rounds) {
    Json one = {{"iops", round.iops()},
                {"requests", round.requests},
                {"serving_cpu_ns_per_request", round.serving_ns(result.drivers_serve)},
                {"threads", threads_json(round.threads)}};
    if (!round.driver_threads.empty()) one["driver_threads"] = threads_json(round.driver_threads);
    object["rounds"].push_back(one);
  }
  return object;
}

}  // namespace

std::string queues_table(const QueuesBenchOptions& options, std::span<const QueuesResult> results) {
  std::string text = title(options) + "\n";
  text += fmt::format("{:<28} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7} {:>7} {:>7} {:>8}\n", "",
                      "IOPS", "mean us", "p50", "p99", "p99.9", "serve us", "sleeps", "kicks",
                      "irqs", "syscalls");
  for (const QueuesResult& result : results) text += row(result);
  for (const QueuesResult& result : results) {
    if (result.rounds.empty()) continue;
    text += threads_line(result);
    const Summary summary = summarise(result);
    if (summary.behind_ns > 0)
      text += fmt::format("{}: it cannot do {} a second on each queue: {:.1f} ms behind\n",
                          result.name, options.rate, us(summary.behind_ns) / 1e3);
  }
  return text;
}

std::string queues_json(const QueuesBenchOptions& options, std::span<const QueuesResult> results) {
  Json document = {{"path", options.path},           {"rw", pattern_name(options.pattern)},
                   {"bs", options.block_bytes},      {"depth", options.depth},
                   {"queues", options.queues},       {"threads", options.threads},
                   {"iothreads", options.iothreads}, {"rate", options.rate},
                   {"direct", options.direct},       {"completion", options.irq ? "irq" : "poll"},
                   {"results", Json::array()}};
  for (size_t i = 0; i < results.size(); ++i)
    document["results"].push_back(result_json(options, options.contestants[i], results[i]));
  // A path is any bytes.
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string queues_plot(const QueuesBenchOptions& options, std::span<const QueuesResult> results) {
  std::list<loop::LatencyHistogram> latencies;
  std::vector<CdfCurve> curves;
  for (const QueuesResult& result : results) {
    latencies.push_back(summarise(result).latency);
    curves.push_back({result.name, &latencies.back()});
  }
  return cdf_svg(title(options), curves);
}

}  // namespace skiff::vmm
