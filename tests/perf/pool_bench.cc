// SPDX-License-Identifier: GPL-2.0-or-later
// How long a burst of requests stalls the thread that submits it to an idle worker pool, and where
// the workers may run when that thread is pinned. In 2011 QEMU's pool, whose submitter created the
// threads, took 2 ms for 64 requests.
//
//   pool_bench [ROUNDS]
//
// Status 1 when the median stall is more than 100 us, or a worker inherited its submitter's CPU.
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "loop/clock.h"
#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/thread.h"
#include "loop/worker_pool.h"

namespace {

using namespace skiff::loop;  // NOLINT(google-build-using-namespace)

constexpr size_t kBurst = 64;
constexpr double kStallLimitUs = 100;
constexpr int64_t kBusyNs = 500'000;  // What each request blocks its worker for.

std::atomic<int> wrong_cpus{0};
int cpus_of_process = 0;

int my_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return CPU_COUNT(&set);
}

void sleep_ns(int64_t ns) {
  const timespec time = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
}

struct Burst {
  struct Item : WorkItem {
    Burst* burst = nullptr;
  };
  std::array<Item, kBurst> items;
  size_t done = 0;
};

struct Round {
  double stall_us = 0;
  double slowest_us = 0;  // Of the 64 calls.
  double all_done_us = 0;
  uint32_t workers = 0;
};

Round run_burst(EventLoop& loop, WorkerPool& pool) {
  const MonotonicClock clock;
  Burst burst;
  for (Burst::Item& item : burst.items) {
    item.burst = &burst;
    item.run = [](WorkItem&) {
      if (my_cpus() != cpus_of_process) wrong_cpus.fetch_add(1);
      sleep_ns(kBusyNs);
    };
    item.done = [](WorkItem& ended) { ++static_cast<Burst::Item&>(ended).burst->done; };
  }
  Round round;
  const int64_t start_ns = clock.now_ns();
  int64_t last_ns = start_ns;
  for (Burst::Item& item : burst.items) {
    pool.submit(loop, item);
    const int64_t now_ns = clock.now_ns();
    round.slowest_us = std::max(round.slowest_us, static_cast<double>(now_ns - last_ns) / 1000);
    last_ns = now_ns;
  }
  round.stall_us = static_cast<double>(last_ns - start_ns) / 1000;
  while (burst.done < kBurst) loop.run_once(EventLoop::Wait::kUntilEvent);
  round.all_done_us = static_cast<double>(clock.now_ns() - start_ns) / 1000;
  round.workers = pool.counters().workers;
  return round;
}

double median(std::vector<Round> rounds, double Round::* member) {
  std::ranges::sort(rounds, {}, member);
  return rounds[rounds.size() / 2].*member;
}

double worst(const std::vector<Round>& rounds, double Round::* member) {
  return (*std::ranges::max_element(rounds, {}, member)).*member;
}

int run(size_t count) {
  // So short that the pool is back at its two workers before each burst.
  auto pool = WorkerPool::create({.max_workers = kBurst, .idle_retire_ns = 5'000'000});
  auto loop = EventLoop::create();
  if (!pool || !loop) {
    std::fprintf(stderr, "pool_bench: %s\n",
                 (pool ? loop.error() : pool.error()).message().c_str());
    return 2;
  }
  std::vector<Round> rounds;
  uint32_t most_workers = 0;
  for (size_t i = 0; i < count; ++i) {
    while ((*pool)->counters().workers > 2) sleep_ns(1'000'000);
    sleep_ns(20'000'000);
    rounds.push_back(run_burst(**loop, **pool));
    most_workers = std::max(most_workers, rounds.back().workers);
  }
  pool->reset();
  const double stall_us = median(rounds, &Round::stall_us);
  std::printf("%zu bursts of %zu requests to an idle pool, submitter pinned to one of %d CPUs\n",
              count, kBurst, cpus_of_process);
  std::printf("  submitter stalled in all   median %7.1f us   worst %7.1f us\n", stall_us,
              worst(rounds, &Round::stall_us));
  std::printf("  slowest single call        median %7.1f us   worst %7.1f us\n",
              median(rounds, &Round::slowest_us), worst(rounds, &Round::slowest_us));
  std::printf("  until the last was done    median %7.1f us   worst %7.1f us (at best %.0f us)\n",
              median(rounds, &Round::all_done_us), worst(rounds, &Round::all_done_us),
              static_cast<double>(kBusyNs) / 1000);
  std::printf("  workers at most %u, requests on a worker without all CPUs: %d\n", most_workers,
              wrong_cpus.load());
  return stall_us > kStallLimitUs || wrong_cpus.load() != 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 101;
  cpus_of_process = my_cpus();
  CpuSet one;
  one.add(static_cast<uint32_t>(sched_getcpu()));
  int status = 2;
  // As an IOThread that the user has pinned.
  auto submitter = Thread::create({.name = "submitter", .cpus = one},
                                  [&] { status = run(static_cast<size_t>(std::max(rounds, 1))); });
  if (submitter) submitter->join();
  return status;
}
