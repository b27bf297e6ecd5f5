// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_report.h"

#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "loop/latency_histogram.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/cdf_plot.h"
#include "vmm/bench/guest/guest_bench.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_result.h"
#include "vmm/bench/histogram_text.h"

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

std::string counted(const GuestResult& result, const std::string& name) {
  const auto found = result.counted.find(name);
  return found == result.counted.end() ? "?" : fmt::format("{:.2f}", found->second);
}

std::string row(const GuestResult& result, const std::optional<Floor>& floor) {
  if (result.rounds.empty())
    return fmt::format("{:<24} failed: {}\n", result.name, result.error.value_or(""));
  const GuestSummary summary = summarise(result);
  const loop::LatencyHistogram& latency = summary.latency;
  return fmt::format(
      "{:<24} {:>9.0f} {:>8.1f} {:>8.1f} {:>8.1f} {:>9.1f} {:>8} {:>7.2f} {:>7.2f} {:>6.2f} "
      "{:>6.2f} {:>6} {:>6} {:>6} {:>6.1f}\n",
      result.name, summary.iops.median, us(summary.mean_ns.median), us(summary.p50_ns.median),
      us(latency.percentile_ns(99)), us(latency.percentile_ns(99.9)),
      floor ? fmt::format("{:.1f}", us(summary.mean_ns.median - floor->mean_ns)) : "?",
      us(summary.io_cpu_ns), us(summary.vcpu_host_ns), summary.kicks, summary.interrupts,
      counted(result, "exits"), counted(result, "userspace_exits"), counted(result, "syscalls"),
      summary.boot_ms);
}

std::string floor_row(const EngineResult& floor) {
  const EngineSummary summary = summarise(floor);
  const loop::LatencyHistogram& latency = summary.latency;
  return fmt::format("{:<24} {:>9.0f} {:>8.1f} {:>8.1f} {:>8.1f} {:>9.1f} {:>8} {:>7.2f}\n",
                     floor.engine, summary.iops.median, us(latency.mean_ns()),
                     us(latency.percentile_ns(50)), us(latency.percentile_ns(99)),
                     us(latency.percentile_ns(99.9)), "floor", us(summary.cpu_ns_per_io));
}

std::string notes(const GuestBenchOptions& options, const GuestBenchResults& results) {
  std::string text;
  for (const GuestResult& result : results.guests) {
    if (result.rounds.empty()) continue;
    const GuestSummary summary = summarise(result);
    if (result.rounds.size() > 1)
      text +=
          fmt::format("{}: IOPS of the rounds {:.0f} to {:.0f}, mean latency {:.1f} to {:.1f}\n",
                      result.name, summary.iops.least, summary.iops.most, us(summary.mean_ns.least),
                      us(summary.mean_ns.most));
    if (result.error)
      text += fmt::format("{}: only {} rounds, then: {}\n", result.name, result.rounds.size(),
                          *result.error);
    if (summary.behind_ns > 0)
      text +=
          fmt::format("{}: it cannot do {} a second on each queue\n", result.name, options.rate);
  }
  text +=
      "CPU us for each request: io of threads that are no vCPUs, vcpu of vCPU threads outside the "
      "guest. Kicks, interrupts, exits and system calls are for each request too.\n";
  return text;
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
  std::string text = title(options) + "\n";
  text += fmt::format(
      "{:<24} {:>9} {:>8} {:>8} {:>8} {:>9} {:>8} {:>7} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} "
      "{:>6}\n",
      "", "IOPS", "mean us", "p50", "p99", "p99.9", "overhead", "CPU io", "vcpu", "kicks", "irqs",
      "exits", "to us", "calls", "boot");
  const auto floor = floor_of(results);
  if (results.floor) text += floor_row(*results.floor);
  for (const GuestResult& result : results.guests) text += row(result, floor);
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
  if (results.floor) {
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
