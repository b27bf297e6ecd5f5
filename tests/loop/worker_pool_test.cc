// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/worker_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/thread.h"

namespace skiff::loop {
namespace {

constexpr int64_t kNeverRetire = 3'600'000'000'000;

// Work that waits until it is let go, and counts how much of it runs at once.
struct Gate {
  void pass() {
    const int now_inside = ++inside;
    int most = most_inside;
    while (most < now_inside && !most_inside.compare_exchange_weak(most, now_inside)) {
    }
    while (!open) sched_yield();
    --inside;
    ++runs;
  }
  std::atomic<bool> open{false};
  std::atomic<int> inside{0};
  std::atomic<int> most_inside{0};
  std::atomic<int> runs{0};
};

struct GatedItem : WorkItem {
  GatedItem() {
    run = [](WorkItem& item) {
      static_cast<GatedItem&>(item).gate->pass();
      ++static_cast<GatedItem&>(item).runs;
    };
    done = [](WorkItem& item) { ++static_cast<GatedItem&>(item).dones; };
  }
  Gate* gate = nullptr;
  int runs = 0;
  int dones = 0;
};

class WorkerPoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<EventLoop>> made = EventLoop::create();
    ASSERT_TRUE(made);
    loop_ = *std::move(made);
    loop_->run_once(EventLoop::Wait::kNo);
  }

  static std::unique_ptr<WorkerPool> make_pool(uint32_t min_workers, uint32_t max_workers,
                                               int64_t idle_retire_ns = kNeverRetire) {
    Result<std::unique_ptr<WorkerPool>> pool = WorkerPool::create(
        {.min_workers = min_workers, .max_workers = max_workers, .idle_retire_ns = idle_retire_ns});
    EXPECT_TRUE(pool.has_value());
    return *std::move(pool);
  }

  void turn_until_done(const std::vector<GatedItem>& items) {
    const auto is_done = [](const GatedItem& item) { return item.dones > 0; };
    while (!std::all_of(items.begin(), items.end(), is_done))
      loop_->run_once(EventLoop::Wait::kUntilEvent);
  }

  std::vector<GatedItem> make_items(size_t count) {
    std::vector<GatedItem> items(count);
    for (GatedItem& item : items) item.gate = &gate_;
    return items;
  }

  Gate gate_;
  std::unique_ptr<EventLoop> loop_;
};

TEST_F(WorkerPoolTest, FirstWorkersAreThereWhenThePoolIs) {
  const std::unique_ptr<WorkerPool> pool = make_pool(3, 8);
  EXPECT_EQ(pool->counters().started, 3U);
  EXPECT_EQ(pool->counters().workers, 3U);
}

TEST_F(WorkerPoolTest, ThousandItemsFromTwoLoopsCompleteExactlyOnceEachOnItsHome) {
  const std::unique_ptr<WorkerPool> pool = make_pool(2, 8);
  Result<std::unique_ptr<IoThread>> io = IoThread::create({.name = "io"});
  ASSERT_TRUE(io);
  struct Item : WorkItem {
    EventLoop* expected_home = nullptr;
    std::atomic<int>* total = nullptr;
    int runs = 0;
    int dones = 0;
    bool at_home = false;
  };
  std::atomic<int> total{0};
  std::vector<Item> items(2000);
  for (Item& item : items) {
    item.total = &total;
    item.run = [](WorkItem& self) { ++static_cast<Item&>(self).runs; };
    item.done = [](WorkItem& self) {
      auto& mine = static_cast<Item&>(self);
      mine.at_home = mine.expected_home->is_current();
      ++mine.dones;
      ++*mine.total;
    };
  }
  const auto submit_half = [&](EventLoop& home, size_t half) {
    for (size_t i = half; i < items.size(); i += 2) {
      items[i].expected_home = &home;
      pool->submit(home, items[i]);
    }
  };
  (*io)->loop().post([&] { submit_half((*io)->loop(), 1); });
  submit_half(*loop_, 0);
  while (total < 2000) loop_->run_once(EventLoop::Wait::kNo);
  for (const Item& item : items) {
    ASSERT_EQ(item.runs, 1);
    ASSERT_EQ(item.dones, 1);
    ASSERT_TRUE(item.at_home);
  }
  EXPECT_EQ(pool->counters().completed, 2000U);
}

TEST_F(WorkerPoolTest, GrowsByTheBacklogUpToItsMaximum) {
  const std::unique_ptr<WorkerPool> pool = make_pool(1, 6);
  std::vector<GatedItem> items = make_items(20);
  for (GatedItem& item : items) pool->submit(*loop_, item);
  while (gate_.inside < 6) sched_yield();  // Each new worker asked for the next.
  EXPECT_EQ(pool->counters().workers, 6U);
  gate_.open = true;
  turn_until_done(items);
  EXPECT_EQ(gate_.most_inside, 6);
  EXPECT_EQ(gate_.runs, 20);
}

TEST_F(WorkerPoolTest, LastToGoIdleIsWokenFirst) {
  const std::unique_ptr<WorkerPool> pool = make_pool(4, 4);
  while (pool->counters().idle < 4) sched_yield();
  gate_.open = true;
  std::set<pthread_t> workers;
  struct Item : WorkItem {
    pthread_t worker{};
    bool is_done = false;
  };
  for (int i = 0; i < 20; ++i) {
    Item item;
    item.run = [](WorkItem& self) { static_cast<Item&>(self).worker = pthread_self(); };
    item.done = [](WorkItem& self) { static_cast<Item&>(self).is_done = true; };
    pool->submit(*loop_, item);
    while (!item.is_done) loop_->run_once(EventLoop::Wait::kUntilEvent);
    while (pool->counters().idle < 4) sched_yield();
    workers.insert(item.worker);
  }
  EXPECT_EQ(workers.size(), 1U);
}

TEST_F(WorkerPoolTest, IdleWorkersAboveTheMinimumRetire) {
  const std::unique_ptr<WorkerPool> pool = make_pool(2, 6, 1'000'000);
  std::vector<GatedItem> items = make_items(6);
  for (GatedItem& item : items) pool->submit(*loop_, item);
  while (gate_.inside < 6) sched_yield();
  gate_.open = true;
  turn_until_done(items);
  while (pool->counters().retired < 4) sched_yield();
  EXPECT_EQ(pool->counters().workers, 2U);
  // And it grows again.
  gate_.open = false;
  std::vector<GatedItem> more = make_items(4);
  for (GatedItem& item : more) pool->submit(*loop_, item);
  while (gate_.inside < 4) sched_yield();
  gate_.open = true;
  turn_until_done(more);
}

TEST_F(WorkerPoolTest, LongWorkLeavesWorkersForShortWork) {
  const std::unique_ptr<WorkerPool> pool = make_pool(4, 4);
  Gate long_gate;
  std::vector<GatedItem> long_items = make_items(8);
  for (GatedItem& item : long_items) {
    item.gate = &long_gate;
    item.lane = WorkItem::Lane::kLong;
    pool->submit(*loop_, item);
  }
  gate_.open = true;
  std::vector<GatedItem> short_items = make_items(10);
  for (GatedItem& item : short_items) pool->submit(*loop_, item);
  turn_until_done(short_items);  // Would hang if long work had all four.
  while (long_gate.inside < 2) sched_yield();
  EXPECT_EQ(pool->counters().running_long, 2U);
  long_gate.open = true;
  turn_until_done(long_items);
  EXPECT_EQ(long_gate.most_inside, 2);
}

TEST_F(WorkerPoolTest, OnlyQueuedWorkCanBeCancelled) {
  const std::unique_ptr<WorkerPool> pool = make_pool(1, 1);
  std::vector<GatedItem> items = make_items(3);
  for (GatedItem& item : items) pool->submit(*loop_, item);
  while (gate_.inside < 1) sched_yield();
  EXPECT_FALSE(pool->cancel(items[0])) << "it runs";
  EXPECT_TRUE(pool->cancel(items[1]));
  EXPECT_FALSE(pool->cancel(items[1])) << "it is not there any more";
  gate_.open = true;
  while (items[2].dones == 0) loop_->run_once(EventLoop::Wait::kUntilEvent);
  EXPECT_FALSE(pool->cancel(items[2])) << "it is done";
  EXPECT_EQ(items[0].dones, 1);
  EXPECT_EQ(items[1].runs, 0);
  EXPECT_EQ(items[1].dones, 0);
}

struct Surroundings : WorkItem {
  Surroundings() {
    run = [](WorkItem& item) {
      auto& self = static_cast<Surroundings&>(item);
      self.cpus = CpuSet::of_current_thread()->to_string();
      self.policy = sched_getscheduler(0);
      sigset_t blocked;
      pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
      self.term_blocked = sigismember(&blocked, SIGTERM) == 1;
    };
    done = [](WorkItem& item) { static_cast<Surroundings&>(item).is_done = true; };
  }
  std::string cpus;
  int policy = -1;
  bool term_blocked = false;
  bool is_done = false;
};

TEST_F(WorkerPoolTest, WorkersHaveAllCpusAndNoSignalsWhoeverMadeThePoolOrSubmits) {
  Result<CpuSet> all = CpuSet::of_process();
  ASSERT_TRUE(all);
  CpuSet one;
  for (uint32_t cpu = 0; one.empty(); ++cpu)
    if (all->contains(cpu)) one.add(cpu);
  Surroundings first;
  std::string creators_cpus;
  Result<Thread> pinned = Thread::create({.name = "pinned", .cpus = one}, [&] {
    creators_cpus = CpuSet::of_current_thread()->to_string();
    auto loop = *EventLoop::create();
    const std::unique_ptr<WorkerPool> pool = make_pool(1, 2);
    pool->submit(*loop, first);
    while (!first.is_done) loop->run_once(EventLoop::Wait::kUntilEvent);
  });
  ASSERT_TRUE(pinned);
  pinned->join();
  EXPECT_EQ(creators_cpus, one.to_string());
  EXPECT_EQ(first.cpus, all->to_string());
  EXPECT_EQ(first.policy, SCHED_OTHER);
  EXPECT_TRUE(first.term_blocked);
}

TEST_F(WorkerPoolTest, ImpossibleLimitsAreAnError) {
  for (const auto& [least, most] : {std::pair{0U, 4U}, std::pair{5U, 4U}}) {
    Result<std::unique_ptr<WorkerPool>> pool =
        WorkerPool::create({.min_workers = least, .max_workers = most});
    ASSERT_FALSE(pool);
    EXPECT_EQ(pool.error().kind(), ErrorKind::kInvalidArgument);
  }
}

TEST_F(WorkerPoolTest, LimitsMayChangeWhileItWorks) {
  const std::unique_ptr<WorkerPool> pool = make_pool(1, 1);
  std::vector<GatedItem> items = make_items(4);
  for (GatedItem& item : items) pool->submit(*loop_, item);
  while (gate_.inside < 1) sched_yield();
  EXPECT_EQ(pool->counters().workers, 1U);
  pool->set_limits(1, 4);
  while (gate_.inside < 4) sched_yield();
  gate_.open = true;
  turn_until_done(items);
}

}  // namespace
}  // namespace skiff::loop
