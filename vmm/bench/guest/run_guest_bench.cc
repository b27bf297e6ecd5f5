// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/run_guest_bench.h"

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <ios>
#include <string>

#include "loop/result.h"
#include "vmm/bench/guest/guest_bench.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_report.h"
#include "vmm/bench/overwrite_guard.h"
#include "vmm/cli/exit_status.h"

namespace skiff::vmm {
namespace {

constexpr int kExitRunFailed = 1;

int fail(const std::string& message, int status) {
  std::fprintf(stderr, "skiff: %s\n", message.c_str());
  return status;
}

}  // namespace

int run_guest_bench(const GuestBenchOptions& options) {
  // Now rather than after minutes of measuring.
  if (!options.plot.empty() && !std::ofstream(options.plot, std::ios::app))
    return fail("--plot " + options.plot + ": cannot be written", kExitUsage);
  if (!writes(options.pattern) && has_holes(options.path, options.size_bytes))
    std::fprintf(stderr,
                 "skiff: %s has room that was never written: reads of it do not reach the disk\n",
                 options.path.c_str());
  auto bench =
      GuestBench::create(options, [](const std::string& name, uint32_t round, double iops) {
        std::fprintf(stderr, "%s round %u: %.0f IOPS\n", name.c_str(), round, iops);
      });
  if (!bench) return fail(bench.error().message(), kExitUsage);
  const auto results = (*bench)->run();
  if (!results) {
    const bool run_failed = results.error().kind() == loop::ErrorKind::kIo;
    return fail(results.error().message(), run_failed ? kExitRunFailed : kExitUsage);
  }
  const std::string text =
      options.json ? guest_json(options, *results) : guest_table(options, *results);
  std::fputs(text.c_str(), stdout);
  if (std::fflush(stdout) != 0) return fail("Writing the results failed", kExitRunFailed);
  if (!options.plot.empty()) {
    std::ofstream file(options.plot);
    file << guest_plot(options, *results);
    file.close();
    if (!file) return fail("Writing " + options.plot + " failed", kExitRunFailed);
  }
  bool all = true;
  for (const GuestResult& guest : results->guests) all = all && !guest.error;
  return all ? 0 : kExitRunFailed;
}

}  // namespace skiff::vmm
