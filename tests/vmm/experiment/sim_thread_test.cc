// SPDX-License-Identifier: GPL-2.0-or-later
// Simulated time against what queueing theory says of it.
#include "vmm/experiment/simulator/sim_thread.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "vmm/experiment/random.h"
#include "vmm/experiment/simulator/event_queue.h"

namespace skiff::vmm {
namespace {

TEST(EventQueue, WhatIsDueAtTheSameTimeComesInItsOrder) {
  EventQueue events;
  std::vector<int> seen;
  events.at(20, [&] { seen.push_back(3); });
  events.at(10, [&] {
    seen.push_back(1);
    events.after(0, [&] { seen.push_back(2); });
    events.at(5, [&] { seen.push_back(events.now_ns() == 10 ? 0 : -1); });  // Too late: now.
  });
  events.at(30, [&] { seen.push_back(4); });
  events.run_until(25);
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 0, 3}));
  EXPECT_EQ(events.now_ns(), 25);
}

struct Served {
  double mean_wait_ns = 0;
  double busy = 0;
  uint64_t count = 0;
};

// One server, each request `service_ns`, arrivals at random.
Served serve(double load, int64_t service_ns, int64_t duration_ns) {
  EventQueue events;
  SimCore core(events, 0);
  Random random(3);
  std::deque<int64_t> waiting;
  Served served;
  double wait_ns = 0;
  int64_t started_ns = 0;
  SimThread thread(events, core,
                   {.begin =
                        [&](bool) {
                          wait_ns += static_cast<double>(events.now_ns() - waiting.front());
                          started_ns = events.now_ns();
                          return service_ns;
                        },
                    .end =
                        [&] {
                          EXPECT_EQ(events.now_ns(), started_ns + service_ns);
                          waiting.pop_front();
                          ++served.count;
                          return !waiting.empty();
                        }});
  const double interval_ns = static_cast<double>(service_ns) / load;
  std::function<void()> arrive = [&] {
    waiting.push_back(events.now_ns());
    thread.tell(0);
    events.after(static_cast<int64_t>(random.exponential(interval_ns)), arrive);
  };
  arrive();
  events.run_until(duration_ns);
  served.mean_wait_ns = wait_ns / static_cast<double>(served.count);
  served.busy = static_cast<double>(thread.cpu_ns()) / static_cast<double>(duration_ns);
  return served;
}

TEST(SimThread, WaitsAsMD1QueuesDo) {
  constexpr int64_t kServiceNs = 1000;
  for (const double load : {0.2, 0.5, 0.8}) {
    const Served served = serve(load, kServiceNs, 400'000'000);
    // Pollaczek and Khinchine for a service time without variance.
    const double expected_ns = kServiceNs * load / (2 * (1 - load));
    EXPECT_NEAR(served.mean_wait_ns, expected_ns, 0.04 * expected_ns) << load;
    EXPECT_NEAR(served.busy, load, 0.01) << load;
  }
}

TEST(SimThread, ASaturatedServerDoesWhatItsServiceTimeAllows) {
  const Served served = serve(1.5, 1000, 100'000'000);
  EXPECT_NEAR(static_cast<double>(served.count), 100'000, 10);
  EXPECT_NEAR(served.busy, 1, 0.001);
}

// Turns of a thread that has something to do as often as it is told.
struct Worker {
  Worker(EventQueue& events, SimCore& core, int64_t turn_ns, int64_t sleep_ns = 0)
      : thread(events, core,
               {.begin =
                    [this, turn_ns](bool from_idle) {
                      slept.push_back(from_idle);
                      return turn_ns;
                    },
                .end =
                    [this, &events] {
                      ended_ns.push_back(events.now_ns());
                      return false;
                    },
                .sleep_ns = sleep_ns}) {}
  std::vector<bool> slept;
  std::vector<int64_t> ended_ns;
  SimThread thread;
};

TEST(SimThread, OneThatSleepsIsLateByItsWakeAndOneThatIsAwakeIsNot) {
  EventQueue events;
  SimCore core(events, 0);
  Worker worker(events, core, 100);
  events.at(0, [&] { worker.thread.tell(50); });
  events.at(120, [&] { worker.thread.tell(50); });  // While it works.
  events.at(1000, [&] { worker.thread.tell(50); });
  events.run_until(10'000);
  EXPECT_EQ(worker.ended_ns, (std::vector<int64_t>{150, 250, 1150}));
  EXPECT_EQ(worker.slept, (std::vector<bool>{true, false, true}));
  EXPECT_EQ(worker.thread.cpu_ns(), 300);
}

TEST(SimThread, OneThatIsToldWhileItGoesToSleepDoesNotSleep) {
  EventQueue events;
  SimCore core(events, 0);
  Worker worker(events, core, 100, 40);
  events.at(0, [&] { worker.thread.tell(50); });
  events.at(160, [&] { worker.thread.tell(50); });  // 10 ns after its turn.
  events.at(1000, [&] { worker.thread.tell(50); });
  events.run_until(10'000);
  EXPECT_EQ(worker.ended_ns, (std::vector<int64_t>{150, 290, 1150}));
  EXPECT_EQ(worker.slept, (std::vector<bool>{true, false, true}));
  EXPECT_EQ(worker.thread.cpu_ns(), 3 * 140);
}

TEST(SimCore, ThreadsOfOneCoreTakeTurnsAndPayForTheChange) {
  EventQueue events;
  SimCore core(events, 10);
  Worker one(events, core, 100);
  Worker other(events, core, 100);
  events.at(0, [&] {
    one.thread.tell(0);
    other.thread.tell(0);
  });
  events.at(1000, [&] { other.thread.tell(0); });  // The core was idle: nothing to change from.
  events.run_until(10'000);
  EXPECT_EQ(one.ended_ns, (std::vector<int64_t>{100}));
  EXPECT_EQ(other.ended_ns, (std::vector<int64_t>{210, 1100}));
  EXPECT_EQ(other.slept, (std::vector<bool>{false, true}));
}

}  // namespace
}  // namespace skiff::vmm
