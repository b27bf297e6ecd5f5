// SPDX-License-Identifier: GPL-2.0-or-later
// How late a real-time timer of 1 ms comes on a loop that serves 32 reads at all times, and bottom
// halves of every other class that schedule themselves again.
//
//   timer_bench [SECONDS [DIRECT_DIR]]
//
// The loop that does nothing else is beside it: what is late there is late by the machine.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "loop/event_loop.h"
#include "loop/latency_histogram.h"
#include "loop/worker_pool.h"
#include "tests/perf/read_job.h"

namespace skiff::block {
namespace {

using loop::Priority;

constexpr int64_t kPeriodNs = 1'000'000;
constexpr size_t kDepth = 32;

// Never idle: the least that a loop full of other work has to do.
class BusyClass {
 public:
  BusyClass(loop::EventLoop& loop, Priority priority)
      : bottom_half_(loop, priority, [this] { bottom_half_.schedule(); }) {
    bottom_half_.schedule();
  }

 private:
  loop::BottomHalf bottom_half_;
};

struct Outcome {
  loop::LatencyHistogram lateness;
  uint64_t reads = 0;
};

Outcome run_load(const IoDevice* device, int64_t duration_ns) {
  auto loop = loop::EventLoop::create();
  auto pool = loop::WorkerPool::create({.min_workers = 1});
  if (!loop || !pool) perf::die("no loop or no pool");
  Outcome outcome;
  bool stop = false;
  {
    std::unique_ptr<IoEngine> engine;
    std::vector<std::unique_ptr<perf::ReadJob>> jobs;
    std::vector<std::unique_ptr<BusyClass>> busy;
    if (device != nullptr) {
      auto made = make_io_engine(IoEngineKind::kIoUring, device->target(), **loop, **pool);
      if (!made) perf::die(made.error().message());
      engine = *std::move(made);
      for (size_t i = 0; i < kDepth; ++i) {
        jobs.push_back(std::make_unique<perf::ReadJob>(*engine, i + 1));
        jobs.back()->stop = &stop;
      }
      for (const Priority priority :
           {Priority::kCompletion, Priority::kSubmission, Priority::kDevice, Priority::kService})
        busy.push_back(std::make_unique<BusyClass>(**loop, priority));
    }
    const int64_t end_ns = (*loop)->now_ns() + duration_ns;
    int64_t due_ns = (*loop)->now_ns();
    std::function<void()> on_timer;
    loop::Timer timer(**loop, Priority::kRealTime, [&on_timer] { on_timer(); });
    on_timer = [&] {
      const int64_t now_ns = (*loop)->now_ns();
      outcome.lateness.record(now_ns - due_ns);
      stop = now_ns >= end_ns;
      due_ns = std::max(due_ns + kPeriodNs, now_ns);
      timer.arm_at(due_ns);
    };
    due_ns += kPeriodNs;
    timer.arm_at(due_ns);
    for (auto& job : jobs) job->next();
    while (!stop) (*loop)->run_once(loop::EventLoop::Wait::kUntilEvent);
    for (const auto& job : jobs) outcome.reads += job->completed;
    busy.clear();
    while (engine && engine->in_flight() > 0) (*loop)->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
  pool->reset();  // Before the loop.
  return outcome;
}

void print(const char* name, const Outcome& outcome, double seconds) {
  const auto us = [&](double percent) {
    return static_cast<double>(outcome.lateness.percentile_ns(percent)) / 1e3;
  };
  std::printf("| %s | %.0f | %.1f | %.1f | %.1f | %.1f |\n", name,
              static_cast<double>(outcome.reads) / seconds, us(50), us(99), us(99.9),
              static_cast<double>(outcome.lateness.max_ns()) / 1e3);
  std::fflush(stdout);
}

void run(double seconds, const std::string& direct_dir) {
  const auto duration_ns = static_cast<int64_t>(seconds * 1e9);
  auto null_options = NullDevice::parse("null:size=64M");
  if (!null_options) perf::die(null_options.error().message());
  const NullDevice null(*null_options);
  const std::unique_ptr<IoDevice> direct = perf::open_file(direct_dir, DirectIo::kOn);
  std::printf(
      "lateness of a timer of 1 ms, us\n"
      "| load | reads/s | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|\n");
  print("none", run_load(nullptr, duration_ns), seconds);
  print("O_DIRECT, 32 reads", run_load(direct.get(), duration_ns), seconds);
  print("null device, 32 reads", run_load(&null, duration_ns), seconds);
}

}  // namespace
}  // namespace skiff::block

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  skiff::block::run(std::max(seconds, 0.1), argc > 2 ? argv[2] : "/var/tmp");
  return 0;
}
