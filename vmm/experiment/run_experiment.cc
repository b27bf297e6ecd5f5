// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/run_experiment.h"

#include <signal.h>
#include <spdlog/fmt/chrono.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <ios>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/file.h"
#include "loop/result.h"
#include "vmm/cli/exit_status.h"
#include "vmm/experiment/compare_results.h"
#include "vmm/experiment/experiment_options.h"
#include "vmm/experiment/experiment_plan.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/experiment_runner.h"
#include "vmm/experiment/host_usage.h"
#include "vmm/experiment/html_report.h"
#include "vmm/experiment/machine_description.h"
#include "vmm/experiment/scratch_files.h"
#include "vmm/experiment/simulator/run_simulation.h"
#include "vmm/signal_watch.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Paths = std::map<std::string, std::string>;

constexpr int kExitCellFailed = 1;
constexpr uint64_t kResultBytesMax = uint64_t{512} << 20;

int fail(const Error& error, int status) {
  std::fprintf(stderr, "skiff: %s\n", error.message().c_str());
  return status;
}

Result<std::string> read_text(const std::string& path, uint64_t bytes_max) {
  const auto bytes = loop::read_file(path, bytes_max);
  if (!bytes) return bytes.error();
  return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
}

// The file, with what the command line says instead.
Result<ExperimentPlan> load_plan(const ExperimentOptions& options) {
  const auto text = read_text(options.path, kExperimentTextBytesMax);
  if (!text) return text.error().with_context("Experiment");
  auto plan = parse_experiment(*text);
  if (!plan) return plan.error().with_context("Experiment", options.path);
  if (options.rounds) plan->rounds = *options.rounds;
  if (options.seed) plan->seed = *options.seed;
  if (options.duration.empty()) return plan;
  for (ExperimentRun& run : plan->runs) {
    std::erase_if(run.axes, [](const ExperimentAxis& axis) { return axis.option == "duration"; });
    run.axes.push_back({"duration", {options.duration}});
  }
  return plan;
}

// Stands in for the paths of files that are not made yet, so that everything else can be checked.
Paths placeholders(const ExperimentPlan& plan) {
  Paths paths;
  for (const ExperimentFile& file : plan.files) paths[file.name] = "${" + file.name + "}";
  return paths;
}

std::string time_left_text(std::optional<double> seconds) {
  if (!seconds) return "";
  const auto whole = static_cast<uint64_t>(*seconds);
  return fmt::format(", {}:{:02}:{:02} left", whole / 3600, whole / 60 % 60, whole % 60);
}

// One line that is written over where somebody watches, and a line for each measurement where not.
class ProgressLine {
 public:
  void show(const ExperimentProgress& progress) {
    if (!terminal_ && progress.outcome.empty()) return;
    std::fprintf(stderr, "%s[%u/%u%s] %s%s%s%s", terminal_ ? "\r\033[K" : "", progress.done,
                 progress.total, time_left_text(progress.seconds_left).c_str(),
                 progress.cell.c_str(), progress.outcome.empty() ? "" : ": ",
                 progress.outcome.c_str(), terminal_ ? "" : "\n");
  }
  void clear() const {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
};

Result<void> write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) return Error(ErrorKind::kIo, fmt::format("Writing {} failed", path));
  return {};
}

std::string default_out(const std::string& name) {
  const std::time_t now = std::time(nullptr);
  return fmt::format("{}-{:%Y%m%d-%H%M%S}", name, fmt::localtime(now));
}

// Now rather than after an hour of measuring.
Result<void> check_writable(const std::string& out) {
  for (const char* suffix : {".html", ".json"}) {
    const std::ofstream file(out + suffix, std::ios::app);
    if (!file)
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("--out {}: {}{} cannot be written", out, out, suffix));
  }
  return {};
}

std::vector<std::string> directories_of(const ExperimentPlan& plan, const Paths& paths) {
  std::vector<std::string> all;
  for (const ExperimentFile& file : plan.files) {
    const auto given = paths.find(file.name);
    all.push_back(given == paths.end() ? file.directory : given->second);
  }
  return all;
}

std::string program_path() {
  std::string path(4096, '\0');
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  path.resize(length > 0 ? static_cast<size_t>(length) : 0);
  return path;
}

class Session {
 public:
  Session(loop::EventLoop& loop, const ExperimentOptions& options, ExperimentPlan plan,
          std::string version)
      : loop_(loop), options_(options), plan_(std::move(plan)), version_(std::move(version)) {}

  // In a callback of the loop. A second one means it.
  void stop() {
    if (stopped_) ::_exit(kExitStopped);
    stopped_ = true;
    if (runner_) runner_->interrupt();
  }

  Result<ExperimentResult> run() {
    // Also a look at the signals, between two parts of a file.
    const auto go_on = [this] {
      loop_.run_once(loop::EventLoop::Wait::kNo);
      return !stopped_;
    };
    auto files = ScratchFiles::create(plan_.files, options_.files, go_on);
    if (!files) return files.error();
    auto cells = expand_experiment(plan_, (*files)->paths());
    if (!cells) return cells.error();
    ExperimentResult result = {
        .name = plan_.name,
        .question = plan_.question,
        .compare = plan_.compare,
        .metrics = plan_.metrics,
        .rounds = plan_.rounds,
        .warm_up = plan_.warm_up,
        .seed = plan_.seed,
        .machine = describe_machine(version_, directories_of(plan_, options_.files))};
    std::fprintf(stderr, "%s: %zu cells, %u rounds after %u to warm up, order by seed %llu\n",
                 plan_.name.c_str(), cells->size(), plan_.rounds, plan_.warm_up,
                 static_cast<unsigned long long>(plan_.seed));
    ProgressLine line;
    const HostCpuTime begin = HostCpuTime::now();
    runner_.emplace(
        loop_, *std::move(cells),
        ExperimentRunner::Options{.program = program_path(),
                                  .rounds = plan_.rounds,
                                  .warm_up = plan_.warm_up,
                                  .seed = plan_.seed,
                                  .timeout_ns = int64_t{plan_.timeout_s} * 1'000'000'000,
                                  .steal_percent_max = plan_.steal_percent_max},
        [&](const ExperimentProgress& progress) { line.show(progress); });
    result.cells = runner_->run();
    line.clear();
    result.interrupted = runner_->was_interrupted();
    runner_.reset();
    result.machine.emplace_back(
        "Stolen CPU time",
        fmt::format("{:.2f} % during the run", HostCpuTime::now().steal_percent_since(begin)));
    return result;
  }

 private:
  loop::EventLoop& loop_;
  const ExperimentOptions& options_;
  const ExperimentPlan plan_;
  const std::string version_;
  std::optional<ExperimentRunner> runner_;
  bool stopped_ = false;
};

int finish(const ExperimentResult& result, const std::string& out) {
  for (const auto& [suffix, text] :
       {std::pair<const char*, std::string>{".json", experiment_json(result)},
        std::pair<const char*, std::string>{".html", html_report(result)}}) {
    const auto written = write_file(out + suffix, text);
    if (!written) return fail(written.error(), kExitCellFailed);
    std::printf("%s%s\n", out.c_str(), suffix);
  }
  const bool failed = std::ranges::any_of(
      result.cells, [](const CellResult& cell) { return !first_failure(cell).empty(); });
  if (failed) std::fprintf(stderr, "skiff: Some cells failed; the report says why\n");
  if (!result.interrupted) return failed ? kExitCellFailed : 0;
  std::fprintf(stderr, "skiff: Stopped; these are the results so far\n");
  return kExitStopped;
}

int run_plan(const ExperimentOptions& options, const std::string& version) {
  auto plan = load_plan(options);
  if (!plan) return fail(plan.error(), kExitUsage);
  const auto checked = expand_experiment(*plan, placeholders(*plan));
  if (!checked) return fail(checked.error().with_context("Experiment", options.path), kExitUsage);
  if (options.task == ExperimentOptions::Task::kList) {
    for (const ExperimentCell& cell : *checked) std::printf("%s\n", cell.name.c_str());
    return 0;
  }
  const std::string out = options.out.empty() ? default_out(plan->name) : options.out;
  const auto writable = check_writable(out);
  if (!writable) return fail(writable.error(), kExitUsage);
  auto loop = loop::EventLoop::create();
  if (!loop) return fail(loop.error(), kExitUsage);
  Session session(**loop, options, *std::move(plan), version);
  auto signals = SignalWatch::create(**loop, [&](int signal) {
    if (signal != SIGWINCH && signal != SIGCONT) session.stop();
  });
  if (!signals) return fail(signals.error(), kExitUsage);
  const auto result = session.run();
  if (!result)
    return fail(result.error(),
                result.error().kind() == ErrorKind::kCancelled ? kExitStopped : kExitUsage);
  return finish(*result, out);
}

int compare(const ExperimentOptions& options) {
  std::vector<ExperimentResult> results;
  for (const std::string& path : {options.before, options.after}) {
    const auto text = read_text(path, kResultBytesMax);
    if (!text) return fail(text.error(), kExitUsage);
    auto result = parse_experiment_json(*text);
    if (!result) return fail(result.error().with_context("Results", path), kExitUsage);
    results.push_back(*std::move(result));
  }
  std::fputs(compare_text(results[0], results[1]).c_str(), stdout);
  return 0;
}

}  // namespace

int run_experiment(const ExperimentOptions& options, const std::string& version) {
  if (options.task == ExperimentOptions::Task::kCompare) return compare(options);
  if (options.task == ExperimentOptions::Task::kSimulate) return run_simulation(options.simulation);
  return run_plan(options, version);
}

}  // namespace skiff::vmm
