// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/run_disk_bench.h"

#include <signal.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <ios>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/latency_histogram.h"
#include "loop/result.h"
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

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr int kExitDiskFailed = 1;

int fail(const Error& error, int status) {
  std::fprintf(stderr, "skiff: %s\n", error.message().c_str());
  return status;
}

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

Result<void> write_plot(const DiskBenchOptions& options, const std::vector<EngineResult>& results) {
  std::list<loop::LatencyHistogram> latencies;
  std::vector<CdfCurve> curves;
  for (const EngineResult& result : results) {
    latencies.push_back(summarise(result).latency);
    curves.push_back({result.engine, &latencies.back()});
  }
  const std::string title =
      fmt::format("{}: {}, {} bytes, depth {}, jobs {}", options.path,
                  pattern_name(options.pattern), options.block_bytes, options.depth, options.jobs);
  std::ofstream file(options.plot);
  file << cdf_svg(title, curves);
  file.close();
  if (!file) return Error(ErrorKind::kIo, fmt::format("Writing {} failed", options.plot));
  return {};
}

}  // namespace

int run_disk_bench(const DiskBenchOptions& options) {
  if (!options.plot.empty()) {
    // Now rather than after minutes of measuring.
    const std::ofstream file(options.plot, std::ios::app);
    if (!file) {
      return fail(Error(ErrorKind::kInvalidArgument,
                        fmt::format("--plot {}: cannot be written", options.plot)),
                  kExitUsage);
    }
  }
  if (options.pattern != AccessPattern::kWrite && options.pattern != AccessPattern::kRandWrite &&
      has_holes(options.path, options.size_bytes)) {
    std::fprintf(stderr,
                 "skiff: %s has room that was never written: reads of it do not reach the disk\n",
                 options.path.c_str());
  }
  auto loop = loop::EventLoop::create();
  if (!loop) return fail(loop.error(), kExitUsage);
  ProgressLine line;
  DiskBench bench(**loop, options, [&](const BenchProgress& progress) { line.show(progress); });
  auto signals = SignalWatch::create(**loop, [&](int signal) {
    if (signal == SIGWINCH) return;
    // A disk that does not answer holds up the end; whoever asks twice means it.
    if (bench.was_interrupted()) ::_exit(kExitStopped);
    bench.interrupt();
  });
  if (!signals) return fail(signals.error(), kExitUsage);

  auto results = bench.run();
  line.clear();
  if (!results) {
    // Everything else is found out before the first request.
    const bool disk_failed = results.error().kind() == ErrorKind::kIo;
    return fail(results.error(), disk_failed ? kExitDiskFailed : kExitUsage);
  }
  const std::string text =
      options.json ? bench_json(options, *results) : bench_table(options, *results);
  std::fputs(text.c_str(), stdout);
  if (std::fflush(stdout) != 0) return fail(Error(ErrorKind::kIo, "Writing the results failed"), 1);
  if (bench.was_interrupted())
    std::fprintf(stderr, "skiff: Stopped; these are the results so far\n");
  if (!options.plot.empty()) {
    const auto written = write_plot(options, *results);
    if (!written) return fail(written.error(), kExitDiskFailed);
  }
  return bench.was_interrupted() ? kExitStopped : 0;
}

}  // namespace skiff::vmm
