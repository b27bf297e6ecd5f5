// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/run_queues_bench.h"

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <ios>
#include <string>

#include "loop/result.h"
#include "vmm/bench/queues_bench.h"
#include "vmm/bench/queues_options.h"
#include "vmm/bench/queues_report.h"
#include "vmm/cli/exit_status.h"

namespace skiff::vmm {
namespace {

constexpr int kExitRunFailed = 1;

int fail(const std::string& message, int status) {
  std::fprintf(stderr, "skiff: %s\n", message.c_str());
  return status;
}

}  // namespace

int run_queues_bench(const QueuesBenchOptions& options) {
  // Now rather than after minutes of measuring.
  if (!options.plot.empty() && !std::ofstream(options.plot, std::ios::app))
    return fail("--plot " + options.plot + ": cannot be written", kExitUsage);
  const auto results =
      run_queues(options, [](const std::string& name, uint32_t round, double iops) {
        std::fprintf(stderr, "%s round %u: %.0f IOPS\n", name.c_str(), round, iops);
      });
  if (!results) {
    const bool run_failed = results.error().kind() == loop::ErrorKind::kIo;
    return fail(results.error().message(), run_failed ? kExitRunFailed : kExitUsage);
  }
  const std::string text =
      options.json ? queues_json(options, *results) : queues_table(options, *results);
  std::fputs(text.c_str(), stdout);
  if (std::fflush(stdout) != 0) return fail("Writing the results failed", kExitRunFailed);
  if (!options.plot.empty()) {
    std::ofstream file(options.plot);
    file << queues_plot(options, *results);
    file.close();
    if (!file) return fail("Writing " + options.plot + " failed", kExitRunFailed);
  }
  bool all = true;
  for (const QueuesResult& result : *results) all = all && !result.error;
  return all ? 0 : kExitRunFailed;
}

}  // namespace skiff::vmm
