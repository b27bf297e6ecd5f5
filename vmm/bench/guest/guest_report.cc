// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "loop/latency_histogram.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/cdf_plot.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/guest/guest_bench.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_result.h"
#include "vmm/bench/histogram_text.h"
#include "vmm/bench/statistics.h"
#include "vmm/bench/thread_usage.h"

namespace skiff::vmm {
namespace {

using Json = nlohmann::ordered_json;

double us(double nanoseconds) { return nanoseconds / 1e3; }
double us(int64_t nanoseconds) { return us(static_cast<double>(nanoseconds)); }

std::string title(const GuestBenchOptions& options) {
  return fmt::format("{}: {}, {} bytes, depth {}, {} vCPU{}, {} queue{}, {}, {}{}", options.path,
                     pattern_name(options.pattern), options.block_bytes, options.depth,
                     options.cpus, options.cpus == 1 ? "" : "s", options.queues,
                     options.queues == 1 ? "" : "s", options.mmio ? "mmio" : "pci",
                     options.irq ? "interrupts" : "polling guest",
                     options.direct ? ", direct" : "");
}

struct Floor {
  double mean_ns = 0;
  double p50_ns = 0;
};
std::optional<Floor> floor_of(const GuestBenchResults& results) {
  if (!results.floor) return std::nullopt;
  std::vector<double> means;
  std::vector<double> medians;
  for (const RoundSample& round : results.floor->rounds) {
    means.push_back(round.latency.mean_ns());
    medians.push_back(static_cast<double>(round.latency.percentile_ns(50)));
  }
  return Floor{spread_of(means).median, spread_of(medians).median};
}

// Means beyond the floor's, one of each round that both have.
std::vector<double> overheads_of(const GuestResult& guest, const GuestBenchResults& results) {
  std::vector<double> overheads;
  if (!results.floor) return overheads;
  const size_t rounds = std::min(guest.rounds.size(), results.floor->rounds.size());
  for (size_t i = 0; i < rounds; ++i)
    overheads.push_back(guest.rounds[i].guest.mean_ns - results.floor->rounds[i].latency.mean_ns());
  return overheads;
}

// Of QEMU's the one with the least overhead, or, without a floor, the least latency. Null: none.
const GuestResult* best_qemu(const GuestBenchOptions& options, const GuestBenchResults& results) {
  const GuestResult* best = nullptr;
  double least = 0;
  for (size_t i = 0; i < results.guests.size(); ++i) {
    if (options.contestants[i].vmm != GuestVmm::kQemu || results.guests[i].rounds.empty()) continue;
    const double mean = summarise(results.guests[i]).mean_ns.median;
    if (best != nullptr && mean >= least) continue;
    best = &results.guests[i];
    least = mean;
  }
  return best;
}

std::string ratio_text(const GuestResult& guest, const GuestResult* other,
                       const GuestBenchResults& results) {
  if (other == nullptr || other == &guest) return "";
  std::vector<double> ours = overheads_of(guest, results);
  std::vector<double> theirs = overheads_of(*other, results);
  const size_t rounds = std::min(ours.size(), theirs.size());
  ours.resize(rounds);
  theirs.resize(rounds);
  if (rounds == 0 || median_of(theirs) <= 0) return "?";
  const Interval ratio = ratio_interval(ours, theirs);
  return fmt::format("{:.2f} ({:.2f} to {:.2f})", ratio.middle, ratio.low, ratio.high);
}

std::string counted(const GuestResult& result, const std::string& name) {
  const auto found = result.counted.find(name);
  return found == result.counted.end() ? "?" : fmt::format("{:.2f}", found->second);
}

std::string row(const GuestResult& result, const GuestResult* qemu,
                const GuestBenchResults& results) {
  if (result.rounds.empty())
    return fmt::format("| {} | failed: {} |\n", result.name, result.error.value_or(""));
  const GuestSummary summary = summarise(result);
  const loop::LatencyHistogram& latency = summary.latency;
  const std::vector<double> overheads = overheads_of(result, results);
  return fmt::format(
      "| {} | {:.0f} ({:.0f} to {:.0f}) | {:.1f} | {:.1f} | {:.1f} | {:.1f} | {} | {} | {:.2f} | "
      "{:.2f} | {:.2f} | {:.2f} | {:.2f} | {} | {} | {} | {:.1f} |\n",
      result.name, summary.iops.median, summary.iops.least, summary.iops.most,
      us(summary.mean_ns.median), us(summary.p50_ns.median), us(latency.percentile_ns(99)),
      us(latency.percentile_ns(99.9)),
      overheads.empty() ? "?" : fmt::format("{:.1f}", us(median_of(overheads))),
      ratio_text(result, qemu, results), us(summary.io_cpu_ns), us(summary.vcpu_host_ns),
      summary.sleeps, summary.kicks, summary.interrupts, counted(result, "exits"),
      counted(result, "userspace_exits"), counted(result, "syscalls"), summary.boot_ms);
}

std::string floor_row(const EngineResult& floor) {
  const EngineSummary summary = summarise(floor);
  const loop::LatencyHistogram& latency = summary.latency;
  return fmt::format(
      "| {} | {:.0f} ({:.0f} to {:.0f}) | {:.1f} | {:.1f} | {:.1f} | {:.1f} | the floor | | {:.2f} "
      "| | | | | | | | |\n",
      floor.engine, summary.iops.median, summary.iops.least, summary.iops.most,
      us(latency.mean_ns()), us(latency.percentile_ns(50)), us(latency.percentile_ns(99)),
      us(latency.percentile_ns(99.9)), us(summary.cpu_ns_per_io));
}

std::string timer_note(const GuestBenchOptions& options, const std::string& name,
                       const loop::LatencyHistogram& late) {
  return fmt::format(
      "- {}: a timer of {} a second came late by {:.1f} us (p50), {:.1f} (p99), {:.1f} (p99.9), "
      "{:.1f} at most\n",
      name, options.timer, us(late.percentile_ns(50)), us(late.percentile_ns(99)),
      us(late.percentile_ns(99.9)), us(late.max_ns()));
}

std::string notes(const GuestBenchOptions& options, const GuestBenchResults& results) {
  std::string text;
  for (size_t i = 0; i < results.guests.size(); ++i) {
    const GuestResult& result = results.guests[i];
    if (result.rounds.empty()) continue;
    const GuestSummary summary = summarise(result);
    if (options.contestants[i].again)
      text += fmt::format("- A/A: overhead of {} to that of the first: {}\n", result.name,
                          ratio_text(result, &results.guests.front(), results));
    if (result.error)
      text += fmt::format("- {}: only {} rounds, then: {}\n", result.name, result.rounds.size(),
                          *result.error);
    if (summary.behind_ns > 0)
      text +=
          fmt::format("- {}: it cannot do {} a second on each queue\n", result.name, options.rate);
    if (summary.timer) text += timer_note(options, result.name, *summary.timer);
  }
  return text.empty() ? "" : "\n" + text;
}

Json latency_json(const loop::LatencyHistogram& latency, double mean_ns) {
  return {{"mean", mean_ns},
          {"p50", latency.percentile_ns(50)},
          {"p90", latency.percentile_ns(90)},
          {"p99", latency.percentile_ns(99)},
          {"p999", latency.percentile_ns(99.9)},
          {"max", latency.max_ns()}};
}

Json thread_json(const ThreadUsage& thread) {
  return {{"name", thread.name},
          {"cpu_ns", thread.cpu_ns},
          {"guest_ns", thread.guest_ns},
          {"sleeps", thread.sleeps},
          {"context_switches", thread.context_switches}};
}

Json round_json(const GuestSample& round) {
  Json threads = Json::array();
  for (const ThreadUsage& thread : round.threads) threads.push_back(thread_json(thread));
  return {{"iops", round.iops()},
          {"seconds", round.seconds},
          {"reads", round.guest.reads},
          {"writes", round.guest.writes},
          {"requests", round.guest.requests},
          {"boot_ns", round.boot_ns},
          {"lat_ns", latency_json(round.guest.latency, round.guest.mean_ns)},
          {"threads", threads}};
}

Json guest_object(const GuestBenchOptions& options, const GuestContestant& contestant,
                  const GuestResult& result, const std::optional<Floor>& floor) {
  const GuestSummary summary = summarise(result);
  Json object = {{"name", result.name},
                 {"vmm", contestant.vmm == GuestVmm::kSkiff ? "skiff" : "qemu"}};
  if (contestant.vmm == GuestVmm::kSkiff) {
    object["submit"] = contestant.submit;
    object["engine"] = contestant.engine;
  } else {
    object["aio"] = contestant.aio;
    object["poll_us"] = contestant.poll_us;
  }
  if (result.error) object["error"] = *result.error;
  object["iops"] = summary.iops.median;
  object["lat_ns"] = latency_json(summary.latency, summary.mean_ns.median);
  object["lat_ns"]["mean_least"] = summary.mean_ns.least;
  object["lat_ns"]["mean_most"] = summary.mean_ns.most;
  object["histogram_ns"] = histogram_text(summary.latency);
  if (summary.timer)
    object["timer_lat_ns"] = latency_json(*summary.timer, summary.timer->mean_ns());
  if (floor) object["overhead_ns"] = summary.mean_ns.median - floor->mean_ns;
  if (floor) object["overhead_p50_ns"] = summary.p50_ns.median - floor->p50_ns;
  object["cpu_ns_per_request"] = summary.cpu_ns;
  object["io_cpu_ns_per_request"] = summary.io_cpu_ns;
  object["vcpu_host_ns_per_request"] = summary.vcpu_host_ns;
  object["requests_per_cpu_second"] = summary.cpu_ns > 0 ? 1e9 / summary.cpu_ns : 0;
  object["sleeps_per_request"] = summary.sleeps;
  object["kicks_per_request"] = summary.kicks;
  object["interrupts_per_request"] = summary.interrupts;
  for (const auto& [name, value] : result.counted) object[name + "_per_request"] = value;
  if (options.rate != 0) object["behind_ns"] = summary.behind_ns;
  object["boot_ms"] = summary.boot_ms;
  object["rounds"] = Json::array();
  for (const GuestSample& round : result.rounds) object["rounds"].push_back(round_json(round));
  return object;
}

}  // namespace

std::string guest_table(const GuestBenchOptions& options, const GuestBenchResults& results) {
  std::string text = title(options) + "\n\n";
  text +=
      "| | IOPS | mean us | p50 | p99 | p99.9 | overhead us | to QEMU's best | I/O threads, CPU us "
      "| vCPU threads, host us | sleeps | kicks | irqs | exits | to user space | system calls | "
      "boot ms |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  if (results.floor) text += floor_row(*results.floor);
  const GuestResult* qemu = best_qemu(options, results);
  for (const GuestResult& result : results.guests) text += row(result, qemu, results);
  return text + notes(options, results);
}

std::string guest_json(const GuestBenchOptions& options, const GuestBenchResults& results) {
  const auto floor = floor_of(results);
  Json document = {{"path", options.path},
                   {"rw", pattern_name(options.pattern)},
                   {"bs", options.block_bytes},
                   {"depth", options.depth},
                   {"cpus", options.cpus},
                   {"queues", options.queues},
                   {"rate", options.rate},
                   {"direct", options.direct},
                   {"bus", options.mmio ? "mmio" : "pci"},
                   {"completion", options.irq ? "irq" : "poll"}};
  if (results.floor && floor) {
    const EngineSummary summary = summarise(*results.floor);
    document["floor"] = {{"name", results.floor->engine},
                         {"iops", summary.iops.median},
                         {"cpu_ns_per_request", summary.cpu_ns_per_io},
                         {"lat_ns", latency_json(summary.latency, floor->mean_ns)}};
  }
  document["guests"] = Json::array();
  for (size_t i = 0; i < results.guests.size(); ++i)
    document["guests"].push_back(
        guest_object(options, options.contestants[i], results.guests[i], floor));
  // A path is any bytes.
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string guest_plot(const GuestBenchOptions& options, const GuestBenchResults& results) {
  std::list<loop::LatencyHistogram> latencies;
  std::vector<CdfCurve> curves;
  const auto add = [&](const std::string& name, const loop::LatencyHistogram& latency) {
    latencies.push_back(latency);
    curves.push_back({name, &latencies.back()});
  };
  if (results.floor) add(results.floor->engine, summarise(*results.floor).latency);
  for (const GuestResult& result : results.guests) add(result.name, summarise(result).latency);
  return cdf_svg(title(options), curves);
}

}  // namespace skiff::vmm
