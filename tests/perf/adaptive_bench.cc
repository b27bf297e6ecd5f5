// SPDX-License-Identifier: GPL-2.0-or-later
// The 2019 table, redrawn: one loop serves a device for 1, 2 or 4 jobs, alone or while 20,000
// events a second of somebody else come to it; with each engine, and with the one that chooses.
//
// usage: adaptive_bench [ROUNDS [DIRECT_DIR [TMPFS_DIR [DEVICE]]]], DEVICE a part of its name.
// The engines take turns of 100 ms in each round, so that what disturbs the machine disturbs all of
// them. "auto" is there twice: the second against the first is what the measurement itself is
// worth.
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/adaptive/adaptive_counters.h"
#include "block/file_device.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "loop/event_loop.h"
#include "loop/latency_histogram.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/perf/read_job.h"
#include "vmm/bench/statistics.h"

namespace skiff::block {
namespace {

using perf::die;
using perf::open_file;
using Job = perf::ReadJob;

constexpr int64_t kTurnNs = 100'000'000;
constexpr int64_t kStreamPeriodNs = 50'000;

constexpr std::array kEngines = {IoEngineKind::kSync, IoEngineKind::kIoUring,
                                 IoEngineKind::kThreads, IoEngineKind::kAuto, IoEngineKind::kAuto};
constexpr size_t kRing = 1;
constexpr size_t kAuto = 3;
constexpr size_t kAutoAgain = 4;

// What somebody else's device would send to the loop: a descriptor that becomes ready at random
// moments, which nobody can foresee.
class Stream {
 public:
  explicit Stream(loop::EventLoop& loop)
      : loop_(loop),
        fd_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
        watcher_(loop, fd_.get(), loop::Priority::kSubmission, [this](uint32_t) { on_ready(); }) {
    if (!fd_) die("no timerfd");
    due_ns_ = loop_.now_ns();
    arm_next();
    watcher_.watch(POLLIN);
  }
  double count() const { return static_cast<double>(latency_.count()); }
  double p99_us() const { return static_cast<double>(latency_.percentile_ns(99)) / 1e3; }

 private:
  void arm_next() {
    due_ns_ += kStreamPeriodNs / 2 + static_cast<int64_t>(random_() % kStreamPeriodNs);
    itimerspec when = {};
    when.it_value = {.tv_sec = due_ns_ / 1'000'000'000, .tv_nsec = due_ns_ % 1'000'000'000};
    timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
  }
  void on_ready() {
    uint64_t count = 0;
    if (::read(fd_.get(), &count, sizeof(count)) != sizeof(count)) return;
    latency_.record(loop_.now_ns() - due_ns_);
    arm_next();
  }

  loop::EventLoop& loop_;
  std::minstd_rand random_;
  int64_t due_ns_ = 0;
  loop::LatencyHistogram latency_;
  loop::UniqueFd fd_;
  loop::FdWatcher watcher_;
};

struct Cell {
  std::string device;
  size_t jobs = 1;
  bool shared = false;
};

struct Turn {
  double request_us = 0;  // Time divided by requests.
  double stream_p99_us = 0;
  double stream_per_s = 0;
};

Turn run_turn(IoEngine& engine, loop::EventLoop& loop, const Cell& cell) {
  std::optional<Stream> stream;
  if (cell.shared) stream.emplace(loop);
  bool stop = false;
  std::vector<std::unique_ptr<Job>> jobs;
  for (size_t i = 0; i < cell.jobs; ++i) {
    jobs.push_back(std::make_unique<Job>(engine, i + 1));
    jobs.back()->stop = &stop;
  }
  loop::Timer end(loop, loop::Priority::kRealTime, [&stop] { stop = true; });
  const int64_t start_ns = loop.now_ns();
  end.arm_at(start_ns + kTurnNs);
  for (auto& job : jobs) job->next();
  while (!stop) loop.run_once(loop::EventLoop::Wait::kUntilEvent);
  const int64_t time_ns = loop.now_ns() - start_ns;
  uint64_t completed = 0;
  for (const auto& job : jobs) completed += job->completed;
  while (engine.in_flight() > 0) loop.run_once(loop::EventLoop::Wait::kUntilEvent);
  Turn turn;
  turn.request_us =
      static_cast<double>(time_ns) / 1e3 / static_cast<double>(std::max<uint64_t>(completed, 1));
  if (!stream) return turn;
  turn.stream_p99_us = stream->p99_us();
  turn.stream_per_s = stream->count() * 1e9 / static_cast<double>(time_ns);
  return turn;
}

std::string mode_shares(const AdaptiveCounters* counters) {
  if (counters == nullptr) return "";
  const auto get = [](const AdaptiveCounters::Counter& one) {
    return static_cast<double>(one.load(std::memory_order_relaxed));
  };
  const double calls = get(counters->inline_calls);
  const double waits = get(counters->ring_waits);
  const double asyncs = get(counters->ring_asyncs);
  const double pool = get(counters->pool_calls);
  const double all = std::max(calls + waits + asyncs + pool, 1.0) / 100;
  std::array<char, 160> text;
  std::snprintf(text.data(), text.size(),
                "M0 %.0f M1 %.0f M2 %.0f M3 %.0f %%; %.0f revisions, %.0f regrets, others %.0f/s, "
                "wake %.1f us",
                calls / all, waits / all, asyncs / all, pool / all, get(counters->revisions),
                get(counters->regrets), get(counters->others_per_s), get(counters->wake_ns) / 1e3);
  return text.data();
}

using Rounds = std::array<std::vector<Turn>, kEngines.size()>;

std::vector<double> column(const std::vector<Turn>& turns, double Turn::* what) {
  std::vector<double> values;
  values.reserve(turns.size());
  for (const Turn& turn : turns) values.push_back(turn.*what);
  return values;
}

// The fastest of those that choose nothing and are `allowed`.
template <typename Allowed>
size_t best_static(const Rounds& rounds, const Allowed& allowed) {
  size_t best = kRing;
  for (size_t i = 0; i < kAuto; ++i) {
    if (!allowed(i)) continue;
    if (vmm::median_of(column(rounds[i], &Turn::request_us)) <
        vmm::median_of(column(rounds[best], &Turn::request_us)))
      best = i;
  }
  return best;
}

void report(const Cell& cell, const Rounds& rounds, const AdaptiveCounters* counters) {
  const size_t best = best_static(rounds, [](size_t) { return true; });
  // The stream may want a word in what is best: not much worse than with the ring.
  const double ring_p99_us = vmm::median_of(column(rounds[kRing], &Turn::stream_p99_us));
  const size_t fair = best_static(rounds, [&](size_t engine) {
    return vmm::median_of(column(rounds[engine], &Turn::stream_p99_us)) <= 1.1 * ring_p99_us;
  });
  std::vector<double> ratios;
  std::vector<double> fair_ratios;
  std::vector<double> again;
  for (size_t i = 0; i < rounds[kAuto].size(); ++i) {
    ratios.push_back(rounds[kAuto][i].request_us / rounds[best][i].request_us);
    fair_ratios.push_back(rounds[kAuto][i].request_us / rounds[fair][i].request_us);
    again.push_back(rounds[kAutoAgain][i].request_us / rounds[kAuto][i].request_us);
  }
  const vmm::Interval ratio = vmm::median_interval(ratios);
  const vmm::Interval spread = vmm::median_interval(again);
  std::printf("| %s, %zu%s |", cell.device.c_str(), cell.jobs, cell.shared ? ", shared" : "");
  for (size_t i = 0; i <= kAuto; ++i)
    std::printf(" %.2f |", vmm::median_of(column(rounds[i], &Turn::request_us)));
  std::printf(" %.2f (%.2f to %.2f) |", ratio.middle, ratio.low, ratio.high);
  if (cell.shared) {
    const vmm::Interval its = vmm::median_interval(fair_ratios);
    std::printf(" %.2f (%.2f to %.2f)", its.middle, its.low, its.high);
  }
  std::printf(" | %.2f to %.2f |", spread.low, spread.high);
  for (size_t i = 0; cell.shared && i <= kAuto; ++i)
    std::printf("%s %.0f (%.0fk/s)", i > 0 ? " /" : "",
                vmm::median_of(column(rounds[i], &Turn::stream_p99_us)),
                vmm::median_of(column(rounds[i], &Turn::stream_per_s)) / 1e3);
  std::printf(" | %s |\n", mode_shares(counters).c_str());
  std::fflush(stdout);
}

void run_cell(const Cell& cell, const IoDevice& device, size_t round_count) {
  auto loop = loop::EventLoop::create();
  auto pool = loop::WorkerPool::create({.min_workers = 4});
  if (!loop || !pool) die("no loop or no pool");
  std::array<std::unique_ptr<IoEngine>, kEngines.size()> engines;
  for (size_t i = 0; i < kEngines.size(); ++i) {
    auto engine = make_io_engine(kEngines[i], device.target(), **loop, **pool);
    if (!engine) die(engine.error().message());
    engines[i] = *std::move(engine);
    run_turn(*engines[i], **loop, cell);  // Warms up, and lets auto learn.
  }
  Rounds rounds;
  for (size_t round = 0; round < round_count; ++round) {
    for (size_t i = 0; i < kEngines.size(); ++i) {
      const size_t engine = (i + round) % kEngines.size();
      rounds[engine].push_back(run_turn(*engines[engine], **loop, cell));
    }
  }
  report(cell, rounds, engines[kAuto]->adaptive_counters());
  engines = {};
  pool->reset();  // Before the loop.
}

void run(size_t rounds, const std::string& direct_dir, const std::string& tmpfs_dir,
         const std::string& only) {
  std::printf(
      "us per request, medians of %zu rounds; the sharing stream's p99 in us\n"
      "| device, jobs | sync | io_uring | threads | auto | auto / best static | auto again / auto "
      "| "
      "stream p99: sync / io_uring / threads / auto | auto's choices |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n",
      rounds);
  auto null_options = NullDevice::parse("null:size=64M,latency=30us");
  if (!null_options) die(null_options.error().message());
  const NullDevice null(*null_options);
  const std::unique_ptr<IoDevice> tmpfs = open_file(tmpfs_dir, DirectIo::kOff);
  const std::unique_ptr<IoDevice> direct = open_file(direct_dir, DirectIo::kOn);
  const std::array<std::pair<const char*, const IoDevice*>, 3> devices = {
      {{"tmpfs", tmpfs.get()}, {"O_DIRECT", direct.get()}, {"null 30 us", &null}}};
  for (const auto& [name, device] : devices) {
    if (std::string_view(name).find(only) == std::string_view::npos) continue;
    for (const size_t jobs : {1U, 2U, 4U}) {
      for (const bool shared : {false, true})
        run_cell({.device = name, .jobs = jobs, .shared = shared}, *device, rounds);
    }
  }
}

}  // namespace
}  // namespace skiff::block

int main(int argc, char** argv) {
  const size_t rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 9;
  skiff::block::run(std::max<size_t>(rounds, 1), argc > 2 ? argv[2] : "/var/tmp",
                    argc > 3 ? argv[3] : "/dev/shm", argc > 4 ? argv[4] : "");
  return 0;
}
