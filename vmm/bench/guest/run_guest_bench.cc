// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/run_guest_bench.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "vmm/bench/bench_output.h"
#include "vmm/bench/guest/guest_bench.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_report.h"
#include "vmm/bench/overwrite_guard.h"
#include "vmm/cli/exit_status.h"

namespace skiff::vmm {

int run_guest_bench(const GuestBenchOptions& options) {
  if (!can_write_plot(options.plot)) return kExitUsage;
  if (!writes(options.pattern) && has_holes(options.path, options.size_bytes))
    std::fprintf(stderr,
                 "skiff: %s has room that was never written: reads of it do not reach the disk\n",
                 options.path.c_str());
  auto bench = GuestBench::create(options, show_round);
  if (!bench) return fail_bench(bench.error().message(), kExitUsage);
  const auto results = (*bench)->run();
  if (!results) return fail_bench(results.error());
  const int written =
      write_results(options.json ? guest_json(options, *results) : guest_table(options, *results),
                    options.plot, options.plot.empty() ? "" : guest_plot(options, *results));
  if (written != 0) return written;
  const bool all = std::ranges::none_of(
      results->guests, [](const GuestResult& guest) { return guest.error.has_value(); });
  return all ? 0 : kExitBenchFailed;
}

}  // namespace skiff::vmm
