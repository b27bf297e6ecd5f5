// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/run_simulation.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "loop/file.h"
#include "loop/result.h"
#include "vmm/cli/exit_status.h"
#include "vmm/experiment/simulator/block_model.h"
#include "vmm/experiment/simulator/host_costs.h"
#include "vmm/experiment/simulator/on_loop.h"
#include "vmm/experiment/simulator/probes.h"
#include "vmm/experiment/simulator/real_run.h"
#include "vmm/experiment/simulator/simulation_options.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::Result;

constexpr uint64_t kCostsBytesMax = uint64_t{64} << 10;
constexpr int kCheckRounds = 3;
constexpr int64_t kCheckNs = 400'000'000;

double us(double nanoseconds) { return nanoseconds / 1e3; }
double us(int64_t nanoseconds) { return us(static_cast<double>(nanoseconds)); }

Result<ProbedCosts> find_costs(const std::string& path) {
  auto probed = probe_host_costs();
  if (!probed || path.empty()) return probed;
  const auto text = loop::read_file(path, kCostsBytesMax);
  if (!text) return text.error().with_context("Costs");
  const std::string json(reinterpret_cast<const char*>(text->data()), text->size());
  const auto applied = apply_costs_text(probed->costs, json);
  if (!applied) return applied.error().with_context("Costs", path);
  probed->notes.push_back("from " + path + " where it names them");
  return probed;
}

void print_costs(const ProbedCosts& probed) {
  std::printf("Costs of this host, ns (--costs FILE.json replaces them)\n");
  for (const HostCostInfo& info : host_cost_infos())
    std::printf("  %-12s %8.0f  %s\n", std::string(info.name).c_str(), probed.costs.*info.value,
                std::string(info.meaning).c_str());
  for (const std::string& note : probed.notes) std::printf("  (%s)\n", note.c_str());
  std::printf("  as JSON: %s\n", costs_json(probed.costs).c_str());
}

// The check's generators have no guest, and their doorbell is an eventfd.
ModelOptions check_model(const RealRunOptions& real, uint32_t cores) {
  return {.iothreads = real.pairs,
          .near = true,
          .vcpus = real.pairs,
          .cores = cores,
          .rate = real.rate,
          .duration_ns = real.duration_ns,
          .seed = real.seed};
}

std::string error_text(double model, double real) {
  return real > 0 ? fmt::format("{:+.0f} %", 100 * (model / real - 1)) : "?";
}

void print_check_row(const RealRunOptions& options, const RealRunResult& real,
                     const ModelResult& model) {
  std::printf("  %u + %u at %6.0f/s each   %7.1f %7.1f %6s   %7.1f %7.1f %6s   %7.2f %7.2f %6s\n",
              options.pairs, options.pairs, options.rate, us(real.latency.mean_ns()),
              us(model.latency.mean_ns()),
              error_text(model.latency.mean_ns(), real.latency.mean_ns()).c_str(),
              us(real.latency.percentile_ns(50)), us(model.latency.percentile_ns(50)),
              error_text(static_cast<double>(model.latency.percentile_ns(50)),
                         static_cast<double>(real.latency.percentile_ns(50)))
                  .c_str(),
              us(real.home_cpu_ns), us(model.home_cpu_ns),
              error_text(model.home_cpu_ns, real.home_cpu_ns).c_str());
}

// The one with the middle mean: real runs meet other work.
Result<RealRunResult> middle_run(RealRunOptions options) {
  std::vector<RealRunResult> runs;
  for (int i = 0; i < kCheckRounds; ++i, options.seed += 100) {
    auto run = run_real(options);
    if (!run) return run.error();
    runs.push_back(*std::move(run));
  }
  std::ranges::sort(runs, {}, [](const RealRunResult& run) { return run.latency.mean_ns(); });
  return runs[kCheckRounds / 2];
}

Result<void> print_check(const SimulationOptions& options, HostCosts costs) {
  const auto cpus = usable_cpus();
  if (!cpus) return cpus.error();
  const auto cores = static_cast<uint32_t>(cpus->size());
  costs.doorbell_ns = costs.notify_ns;
  std::printf(
      "The model beside real runs (generators + IOThreads, eventfds, null device; %u CPUs, the "
      "middle of %d runs)\n"
      "  %-22s   %24s   %24s   %24s\n  %-22s   %7s %7s %6s   %7s %7s %6s   %7s %7s %6s\n",
      cores, kCheckRounds, "", "mean latency us", "p50 us", "IOThread CPU us/request", "", "real",
      "model", "error", "real", "model", "error", "real", "model", "error");
  for (const uint32_t pairs : {1U, 2U}) {
    for (const double rate : {1000.0, 5000.0, 20'000.0}) {
      const RealRunOptions real_options = {.pairs = pairs,
                                           .rate = rate,
                                           .duration_ns = std::min(kCheckNs, options.duration_ns),
                                           .seed = options.seed};
      const auto real = middle_run(real_options);
      if (!real) return real.error();
      print_check_row(real_options, *real, simulate_block(check_model(real_options, cores), costs));
    }
  }
  std::printf("\n");
  return {};
}

struct Arrangement {
  std::string name;
  ModelOptions model;
};

std::vector<Arrangement> arrangements_of(const SimulationOptions& options) {
  const ModelOptions common = {.vcpus = options.vcpus,
                               .cores = options.cores,
                               .rate = static_cast<double>(options.rate),
                               .latency_ns = options.latency_ns,
                               .guest_ns = options.guest_ns,
                               .busy_guest = options.busy_guest,
                               .duration_ns = options.duration_ns,
                               .seed = options.seed};
  std::vector<Arrangement> all;
  const auto add = [&](const std::string& name, uint32_t iothreads, bool near) {
    all.push_back({name, common});
    all.back().model.iothreads = iothreads;
    all.back().model.near = near;
  };
  // Whose caches an IOThread is near to depends on how many share one.
  const uint32_t caches =
      std::max(1U, std::min(options.cores, options.vcpus) / std::max(1U, options.l3_cores));
  add("one IOThread", 1, caches == 1);
  add(fmt::format("{} IOThreads", options.iothreads), options.iothreads, false);
  add(fmt::format("one for each L3 ({})", caches), caches, true);
  all.push_back({"each vCPU itself", common});
  all.back().model.home = ModelOptions::Home::kVcpu;
  return all;
}

void print_model(const SimulationOptions& options, const HostCosts& costs) {
  std::printf(
      "The model: %u vCPUs, %u cores, %llu requests a second each, device %.1f us, guest %s, seed "
      "%llu\n  %-24s %10s %9s %9s %9s %9s %8s %10s\n",
      options.vcpus, options.cores, static_cast<unsigned long long>(options.rate),
      us(options.latency_ns), options.busy_guest ? "busy" : "halted while it waits",
      static_cast<unsigned long long>(options.seed), "arrangement", "done/s", "mean us", "p50",
      "p99", "CPU us", "wakes", "busiest");
  for (const Arrangement& arrangement : arrangements_of(options)) {
    const ModelResult result = simulate_block(arrangement.model, costs);
    std::printf("  %-24s %10.0f %9.1f %9.1f %9.1f %9.2f %8.2f %9.0f%%%s\n",
                arrangement.name.c_str(), static_cast<double>(result.completed) / result.seconds,
                us(result.latency.mean_ns()), us(result.latency.percentile_ns(50)),
                us(result.latency.percentile_ns(99)), us(result.home_cpu_ns),
                result.wakes_per_request, 100 * result.busiest,
                result.saturated() ? "  cannot keep up" : "");
  }
  std::printf(
      "CPU us: of Skiff's own threads, or of its work on vCPU threads, for each request.\n"
      "busiest: the part of its time that the busiest thread works.\n");
}

int fail(const Error& error, int status) {
  std::fprintf(stderr, "skiff: %s\n", error.message().c_str());
  return status;
}

}  // namespace

int run_simulation(const SimulationOptions& options) {
  const auto probed = find_costs(options.costs_path);
  if (!probed) return fail(probed.error(), kExitUsage);
  print_costs(*probed);
  if (options.check) {
    const auto checked = print_check(options, probed->costs);
    if (!checked) return fail(checked.error(), kExitUsage);
  }
  print_model(options, probed->costs);
  return 0;
}

}  // namespace skiff::vmm
