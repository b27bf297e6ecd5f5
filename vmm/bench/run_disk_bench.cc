// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/run_disk_bench.h"

#include <signal.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cstdio>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/latency_histogram.h"
#include "vmm/bench/bench_output.h"
#include "vmm/bench/bench_report.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/cdf_plot.h"
#include "vmm/bench/disk_bench.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/overwrite_guard.h"
#include "vmm/cli/exit_status.h"
#include "vmm/signal_watch.h"

namespace skiff::vmm {
namespace {

// One line that is written over where somebody watches, and a line for each turn where not.
class ProgressLine {
 public:
  void show(const BenchProgress& progress) {
    if (!terminal_ && !progress.turn_ended) return;
    const std::string round =
        progress.rounds > 1 ? fmt::format(" round {}/{}", progress.round, progress.rounds) : "";
    std::fprintf(stderr, "%s%s%s: %.1f s, %.0f IOPS%s", terminal_ ? "\r\033[K" : "",
                 progress.engine.c_str(), round.c_str(), progress.seconds, progress.iops,
                 terminal_ ? "" : "\n");
  }
  void clear() const {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
};

std::string plot_of(const DiskBenchOptions& options, const std::vector<EngineResult>& results) {
  std::list<loop::LatencyHistogram> latencies;
  std::vector<CdfCurve> curves;
  for (const EngineResult& result : results) {
    latencies.push_back(summarise(result).latency);
    curves.push_back({result.engine, &latencies.back()});
  }
  const std::string title =
      fmt::format("{}: {}, {} bytes, depth {}, jobs {}", options.path,
                  pattern_name(options.pattern), options.block_bytes, options.depth, options.jobs);
  return cdf_svg(title, curves);
}

}  // namespace

int run_disk_bench(const DiskBenchOptions& options) {
  if (!can_write_plot(options.plot)) return kExitUsage;
  if (options.pattern != AccessPattern::kWrite && options.pattern != AccessPattern::kRandWrite &&
      has_holes(options.path, options.size_bytes)) {
    std::fprintf(stderr,
                 "skiff: %s has room that was never written: reads of it do not reach the disk\n",
                 options.path.c_str());
  }
  auto loop = loop::EventLoop::create();
  if (!loop) return fail_bench(loop.error().message(), kExitUsage);
  ProgressLine line;
  DiskBench bench(**loop, options, [&](const BenchProgress& progress) { line.show(progress); });
  auto signals = SignalWatch::create(**loop, [&](int signal) {
    if (signal == SIGWINCH || signal == SIGCONT) return;
    // A disk that does not answer holds up the end; whoever asks twice means it.
    if (bench.was_interrupted()) ::_exit(kExitStopped);
    bench.interrupt();
  });
  if (!signals) return fail_bench(signals.error().message(), kExitUsage);

  auto results = bench.run();
  line.clear();
  // Everything but what the disk does is found out before the first request.
  if (!results) return fail_bench(results.error());
  const int written =
      write_results(options.json ? bench_json(options, *results) : bench_table(options, *results),
                    options.plot, options.plot.empty() ? "" : plot_of(options, *results));
  if (written != 0 || !bench.was_interrupted()) return written;
  return fail_bench("Stopped; these are the results so far", kExitStopped);
}

}  // namespace skiff::vmm
