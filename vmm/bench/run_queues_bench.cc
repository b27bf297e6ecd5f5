// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/run_queues_bench.h"

#include <algorithm>
#include <string>

#include "vmm/bench/bench_output.h"
#include "vmm/bench/queues_bench.h"
#include "vmm/bench/queues_options.h"
#include "vmm/bench/queues_report.h"
#include "vmm/cli/exit_status.h"

namespace skiff::vmm {

int run_queues_bench(const QueuesBenchOptions& options) {
  if (!can_write_plot(options.plot)) return kExitUsage;
  const auto results = run_queues(options, show_round);
  if (!results) return fail_bench(results.error());
  const int written =
      write_results(options.json ? queues_json(options, *results) : queues_table(options, *results),
                    options.plot, options.plot.empty() ? "" : queues_plot(options, *results));
  if (written != 0) return written;
  const bool all = std::ranges::none_of(
      *results, [](const QueuesResult& result) { return result.error.has_value(); });
  return all ? 0 : kExitBenchFailed;
}

}  // namespace skiff::vmm
