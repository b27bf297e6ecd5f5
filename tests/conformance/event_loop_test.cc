// SPDX-License-Identifier: GPL-2.0-or-later
// What every event loop must do, whatever is under it.
#include "loop/event_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "loop/thread.h"
#include "tests/conformance/event_loop_suite.h"

namespace skiff::loop {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

INSTANTIATE_TEST_SUITE_P(Loops, EventLoopTest, ::testing::ValuesIn(kLoopKinds), loop_kind_name);

TEST_P(EventLoopTest, PostedCallbacksRunInOrderOfPosting) {
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) loop().post([&order, i] { order.push_back(i); });
  EXPECT_TRUE(order.empty());
  run_until_idle(loop());
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
}

TEST_P(EventLoopTest, MessageRunsOnceForEachPost) {
  struct Counting : Message {
    int runs = 0;
  } message;
  message.run = [](Message& self) { ++static_cast<Counting&>(self).runs; };
  loop().post(message);
  run_until_idle(loop());
  loop().post(message);
  run_until_idle(loop());
  EXPECT_EQ(message.runs, 2);
}

TEST_P(EventLoopTest, MessagesFromManyThreadsAllArriveInEachSendersOrder) {
  constexpr size_t kSenders = 4;
  constexpr size_t kEach = 500;
  std::vector<std::vector<size_t>> got(kSenders);
  size_t total = 0;
  std::vector<Thread> senders;
  senders.reserve(kSenders);
  for (size_t sender = 0; sender < kSenders; ++sender) {
    senders.push_back(start_thread([this, sender, &got, &total] {
      for (size_t i = 0; i < kEach; ++i) {
        loop().post([this, sender, i, &got, &total] {
          got[sender].push_back(i);
          if (++total == kSenders * kEach) loop().stop();
        });
      }
    }));
  }
  loop().run();
  std::vector<size_t> expected(kEach);
  for (size_t i = 0; i < kEach; ++i) expected[i] = i;
  for (const std::vector<size_t>& one : got) EXPECT_THAT(one, ElementsAreArray(expected));
}

TEST_P(EventLoopTest, TurnWithoutWaitReturnsAtOnceWithNothing) {
  EXPECT_FALSE(loop().run_once(EventLoop::Wait::kNo));
  Timer later(loop(), Priority::kDevice, [] {});
  later.arm_after(3'600'000'000'000);
  Pipe pipe;
  FdWatcher never(loop(), pipe.read_end.get(), Priority::kDevice, [](uint32_t) {});
  never.watch(POLLIN);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(loop().run_once(EventLoop::Wait::kNo));
  EXPECT_EQ(loop().counters().sleeps, 0U);
}

TEST_P(EventLoopTest, BottomHalvesRunHighestPriorityFirst) {
  std::vector<Priority> order;
  std::vector<std::unique_ptr<BottomHalf>> halves;
  for (const Priority priority :
       {Priority::kDevice, Priority::kSubmission, Priority::kRealTime, Priority::kCompletion}) {
    halves.push_back(std::make_unique<BottomHalf>(
        loop(), priority, [&order, priority] { order.push_back(priority); }));
    halves.back()->schedule();
  }
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kNo));
  EXPECT_THAT(order, ElementsAre(Priority::kRealTime, Priority::kCompletion, Priority::kSubmission,
                                 Priority::kDevice));
}

TEST_P(EventLoopTest, BottomHalfScheduledInATurnRunsInTheNext) {
  int runs = 0;
  BottomHalf* self = nullptr;
  BottomHalf half(loop(), Priority::kRealTime, [&] {
    if (++runs < 3) self->schedule();
  });
  self = &half;
  half.schedule();
  for (int turn = 1; turn <= 3; ++turn) {
    EXPECT_TRUE(loop().run_once(EventLoop::Wait::kNo));
    EXPECT_EQ(runs, turn);
  }
  EXPECT_FALSE(loop().run_once(EventLoop::Wait::kNo));
}

TEST_P(EventLoopTest, BottomHalfScheduledTwiceRunsOnce) {
  int runs = 0;
  BottomHalf half(loop(), Priority::kDevice, [&runs] { ++runs; });
  half.schedule();
  half.schedule();
  run_until_idle(loop());
  EXPECT_EQ(runs, 1);
}

TEST_P(EventLoopTest, CancelledBottomHalfDoesNotRunAndMayBeScheduledAgain) {
  int runs = 0;
  BottomHalf half(loop(), Priority::kDevice, [&runs] { ++runs; });
  half.schedule();
  half.cancel();
  run_until_idle(loop());
  EXPECT_EQ(runs, 0);
  half.schedule();
  run_until_idle(loop());
  EXPECT_EQ(runs, 1);
}

TEST_P(EventLoopTest, BottomHalfScheduledByAnotherThreadIsCancelledInTheMailbox) {
  int runs = 0;
  loop().run_once(EventLoop::Wait::kNo);  // Bound to this thread from here on.
  {
    BottomHalf half(loop(), Priority::kDevice, [&runs] { ++runs; });
    start_thread([&half] { half.schedule(); }).join();
    half.cancel();
    run_until_idle(loop());
    start_thread([&half] { half.schedule(); }).join();
  }  // Destroyed while in the mailbox.
  run_until_idle(loop());
  EXPECT_EQ(runs, 0);
}

TEST_P(EventLoopTest, BottomHalfScheduledByAnotherThreadWakesTheLoop) {
  std::atomic<int> runs{0};
  BottomHalf half(loop(), Priority::kDevice, [&] {
    ++runs;
    loop().stop();
  });
  Thread other = start_thread([&half] { half.schedule(); });
  loop().run();
  EXPECT_EQ(runs, 1);
}

TEST_P(EventLoopTest, BottomHalfMayDestroyItselfAndOthersInItsCallback) {
  int others = 0;
  auto other = std::make_unique<BottomHalf>(loop(), Priority::kDevice, [&others] { ++others; });
  std::unique_ptr<BottomHalf> self;
  const auto alive = std::make_shared<int>(7);
  int seen = 0;
  self = std::make_unique<BottomHalf>(loop(), Priority::kSubmission, [&, alive] {
    self.reset();
    other.reset();
    seen = *alive;  // What the callback has captured lives until it returns.
  });
  self->schedule();
  other->schedule();
  run_until_idle(loop());
  EXPECT_EQ(seen, 7);
  EXPECT_EQ(others, 0);
  EXPECT_EQ(alive.use_count(), 1);
}

TEST_P(EventLoopTest, FloodOfOneClassGetsItsBudgetAndTheOthersRunInTheSameTurn) {
  constexpr int kMany = 1000;
  int completions = 0;
  int device = 0;
  std::vector<std::unique_ptr<BottomHalf>> flood;
  for (int i = 0; i < kMany; ++i) {
    flood.push_back(std::make_unique<BottomHalf>(manual(), Priority::kCompletion,
                                                 [&completions] { ++completions; }));
    flood.back()->schedule();
  }
  BottomHalf other(manual(), Priority::kDevice, [&device] { ++device; });
  other.schedule();
  manual().run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(completions, 64);
  EXPECT_EQ(device, 1);
  run_until_idle(manual());
  EXPECT_EQ(completions, kMany);
}

TEST_P(EventLoopTest, SlowCallbacksEndTheBudgetByTime) {
  int ran = 0;
  std::vector<std::unique_ptr<BottomHalf>> slow;
  for (int i = 0; i < 64; ++i) {
    slow.push_back(std::make_unique<BottomHalf>(manual(), Priority::kSubmission, [&] {
      ++ran;
      clock_.advance_ns(10'000);
    }));
    slow.back()->schedule();
  }
  manual().run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(ran, 16);  // 160 us: seen at the first look at the clock.
}

TEST_P(EventLoopTest, RealTimeClassIsServedUntilEmpty) {
  int ran = 0;
  std::vector<std::unique_ptr<BottomHalf>> halves;
  for (int i = 0; i < 500; ++i) {
    halves.push_back(
        std::make_unique<BottomHalf>(manual(), Priority::kRealTime, [&ran] { ++ran; }));
    halves.back()->schedule();
  }
  manual().run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(ran, 500);
}

TEST_P(EventLoopTest, RealTimeTimerRunsOnTimeUnderAFloodOfCompletions) {
  std::vector<std::unique_ptr<BottomHalf>> flood;
  int completions = 0;
  int completions_before_timer = -1;
  Timer timer(manual(), Priority::kRealTime, [&] { completions_before_timer = completions; });
  timer.arm_after(20'000);
  for (int i = 0; i < 1000; ++i) {
    flood.push_back(std::make_unique<BottomHalf>(manual(), Priority::kCompletion, [&] {
      ++completions;
      clock_.advance_ns(1'000);
    }));
    flood.back()->schedule();
  }
  manual().run_once(EventLoop::Wait::kNo);
  // Due after 20 callbacks; looked for after every 16.
  EXPECT_EQ(completions_before_timer, 32);
  EXPECT_EQ(manual().counters().worst_real_time_lateness_ns, 12'000);
}

TEST_P(EventLoopTest, ServiceRunsWhenNothingElseDoesOrWhenStarved) {
  int service_runs = 0;
  BottomHalf service(manual(), Priority::kService, [&service_runs] { ++service_runs; });
  BottomHalf* again = nullptr;
  bool busy = true;
  BottomHalf device(manual(), Priority::kDevice, [&] {
    clock_.advance_ns(100'000);
    if (busy) again->schedule();
  });
  again = &device;
  device.schedule();
  service.schedule();
  for (int i = 0; i < 40; ++i) manual().run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(service_runs, 0) << "4 ms: the device has not let go yet";
  for (int i = 0; i < 15; ++i) manual().run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(service_runs, 1) << "5.5 ms: starved for long enough";

  service.schedule();
  busy = false;
  run_until_idle(manual());
  EXPECT_EQ(service_runs, 2);
}

TEST_P(EventLoopTest, ServiceHasAQuantum) {
  int ran = 0;
  std::vector<std::unique_ptr<BottomHalf>> services;
  for (int i = 0; i < 10; ++i) {
    services.push_back(std::make_unique<BottomHalf>(manual(), Priority::kService, [&] {
      ++ran;
      clock_.advance_ns(70'000);
    }));
    services.back()->schedule();
  }
  manual().run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(ran, 3);
  run_until_idle(manual());
  EXPECT_EQ(ran, 10);
}

TEST_P(EventLoopTest, TimersRunInOrderOfDeadlineThenOfArming) {
  std::vector<int> order;
  std::vector<std::unique_ptr<Timer>> timers;
  const std::vector<int64_t> delays = {30, 10, 20, 10, 30};
  for (size_t i = 0; i < delays.size(); ++i) {
    timers.push_back(std::make_unique<Timer>(
        manual(), Priority::kDevice, [&order, i] { order.push_back(static_cast<int>(i)); }));
    timers.back()->arm_after(delays[i]);
  }
  run_until_idle(manual());
  EXPECT_TRUE(order.empty());
  clock_.advance_ns(20);
  run_until_idle(manual());
  EXPECT_THAT(order, ElementsAre(1, 3, 2));
  clock_.advance_ns(10);
  run_until_idle(manual());
  EXPECT_THAT(order, ElementsAre(1, 3, 2, 0, 4));
}

TEST_P(EventLoopTest, TimerRearmedInItsCallbackRunsAgain) {
  int runs = 0;
  Timer* self = nullptr;
  Timer timer(manual(), Priority::kDevice, [&] {
    EXPECT_FALSE(self->is_armed());
    if (++runs < 5) self->arm_after(10);
  });
  self = &timer;
  timer.arm_after(10);
  for (int i = 0; i < 10; ++i) {
    clock_.advance_ns(10);
    run_until_idle(manual());
  }
  EXPECT_EQ(runs, 5);
}

TEST_P(EventLoopTest, RearmingReplacesTheDeadlineEvenOfAnExpiredTimer) {
  int runs = 0;
  Timer late(manual(), Priority::kDevice, [&runs] { ++runs; });
  Timer first(manual(), Priority::kCompletion, [&late] { late.arm_after(100); });
  late.arm_after(10);
  first.arm_after(10);
  clock_.advance_ns(10);  // Both expire in one turn; `first` runs first.
  run_until_idle(manual());
  EXPECT_EQ(runs, 0);
  EXPECT_TRUE(late.is_armed());
  clock_.advance_ns(100);
  run_until_idle(manual());
  EXPECT_EQ(runs, 1);
}

TEST_P(EventLoopTest, TimerCancelledOrDestroyedByAnotherInTheSameTurnDoesNotRun) {
  int runs = 0;
  Timer cancelled(manual(), Priority::kDevice, [&runs] { ++runs; });
  auto destroyed = std::make_unique<Timer>(manual(), Priority::kDevice, [&runs] { ++runs; });
  std::unique_ptr<Timer> self;
  self = std::make_unique<Timer>(manual(), Priority::kRealTime, [&] {
    cancelled.cancel();
    destroyed.reset();
    self.reset();
  });
  for (Timer* timer : {&cancelled, destroyed.get(), self.get()}) timer->arm_after(5);
  clock_.advance_ns(5);
  run_until_idle(manual());
  EXPECT_EQ(runs, 0);
  EXPECT_EQ(self, nullptr);
}

TEST_P(EventLoopTest, ThousandsOfTimersEachRunOnce) {
  constexpr size_t kTimers = 5000;
  std::vector<int> runs(kTimers);
  std::vector<std::unique_ptr<Timer>> timers;
  for (size_t i = 0; i < kTimers; ++i) {
    timers.push_back(
        std::make_unique<Timer>(manual(), Priority::kDevice, [&runs, i] { ++runs[i]; }));
    timers.back()->arm_after(static_cast<int64_t>((i * 7919) % 1000));
  }
  for (size_t i = 0; i < kTimers; i += 5) timers[i]->cancel();
  for (int step = 0; step < 10; ++step) {
    clock_.advance_ns(100);
    run_until_idle(manual());
  }
  for (size_t i = 0; i < kTimers; ++i) EXPECT_EQ(runs[i], i % 5 == 0 ? 0 : 1) << i;
}

TEST_P(EventLoopTest, SleepingLoopIsWokenByItsTimerNotEarlier) {
  int64_t ran_at_ns = 0;
  Timer timer(loop(), Priority::kDevice, [&] {
    ran_at_ns = loop().now_ns();
    loop().stop();
  });
  const int64_t deadline_ns = loop().now_ns() + 2'000'000;
  timer.arm_at(deadline_ns);
  loop().run();
  EXPECT_GE(ran_at_ns, deadline_ns);
  // It slept rather than span: in every turn but the last, should the deadline pass before it. (The
  // rings of other tests interrupt a sleep now and then while the kernel tears them down.)
  EXPECT_LE(loop().counters().turns, loop().counters().sleeps + 1);
}

TEST_P(EventLoopTest, StopEndsRunAfterTheTurnAndIsForgottenThen) {
  int runs = 0;
  loop().post([this, &runs] {
    loop().stop();
    ++runs;
  });
  loop().post([&runs] { ++runs; });
  loop().run();
  EXPECT_EQ(runs, 2);
  loop().stop();  // Before run(): it returns at once.
  loop().run();
  loop().post([this] { loop().stop(); });
  loop().run();
}

TEST_P(EventLoopTest, StopFromAnotherThreadEndsASleep) {
  Thread other = start_thread([this] { loop().stop(); });
  loop().run();
}

TEST_P(EventLoopTest, RunningLoopIsNotWoken) {
  int received = 0;
  std::vector<uint64_t> wakes;
  loop().post([&] {
    const uint64_t before = loop().counters().wakes;
    start_thread([&] {
      for (int i = 0; i < 100; ++i) loop().post([&received] { ++received; });
    }).join();
    wakes.push_back(loop().counters().wakes - before);
  });
  run_until_idle(loop());
  EXPECT_EQ(received, 100);
  EXPECT_THAT(wakes, ElementsAre(0U));
}

TEST_P(EventLoopTest, SleepingLoopIsWokenOnceForAPileOfMessages) {
  std::atomic<bool> all_sent{false};
  int received = 0;
  uint64_t wakes = 0;
  Thread other = start_thread([&] {
    while (loop().counters().sleeps == 0) sched_yield();
    // The first keeps the loop busy until all are there.
    loop().post([&all_sent] {
      while (!all_sent) sched_yield();
    });
    for (int i = 0; i < 50; ++i) loop().post([&received] { ++received; });
    loop().post([&] {
      wakes = loop().counters().wakes;
      loop().stop();
    });
    all_sent = true;
  });
  loop().run();
  EXPECT_EQ(received, 50);
  EXPECT_EQ(wakes, 1U);
}

TEST_P(EventLoopTest, LoopBelongsToTheThreadThatTurnedItFirst) {
  EXPECT_TRUE(loop().is_current());
  loop().run_once(EventLoop::Wait::kNo);
  EXPECT_TRUE(loop().is_current());
  bool current_elsewhere = true;
  start_thread([&] { current_elsewhere = loop().is_current(); }).join();
  EXPECT_FALSE(current_elsewhere);
}

TEST_P(EventLoopTest, WhatComesFromOutsideIsCountedAndWhatCallbacksScheduleIsNot) {
  loop().run_once(EventLoop::Wait::kNo);  // From now on this thread is the loop's.
  int runs = 0;
  BottomHalf again(loop(), Priority::kDevice, [&] { ++runs; });
  again.schedule();
  run_until_idle(loop());
  ASSERT_EQ(runs, 1);
  EXPECT_EQ(loop().arrivals(), 0U);
  Timer timer(loop(), Priority::kDevice, [] {});
  timer.arm_after(0);
  loop().post([] {});
  Pipe pipe;
  pipe.write_byte();
  FdWatcher watcher(loop(), pipe.read_end.get(), Priority::kDevice,
                    [&](uint32_t) { watcher.watch(0); });
  watcher.watch(POLLIN);
  run_until_idle(loop());
  EXPECT_EQ(loop().arrivals(), 3U);
}

TEST_P(EventLoopTest, NextDeadlineIsTheEarliestTimers) {
  EXPECT_EQ(loop().next_deadline_ns(), std::numeric_limits<int64_t>::max());
  Timer late(loop(), Priority::kDevice, [] {});
  Timer early(loop(), Priority::kRealTime, [] {});
  const int64_t now_ns = loop().now_ns();
  late.arm_at(now_ns + 2'000'000'000);
  early.arm_at(now_ns + 1'000'000'000);
  EXPECT_EQ(loop().next_deadline_ns(), now_ns + 1'000'000'000);
}

TEST_P(EventLoopTest, UnrunCallbacksGoWithTheLoop) {
  const auto held = std::make_shared<int>(0);
  loop().post([held] { FAIL() << "never turned"; });
  EXPECT_EQ(held.use_count(), 2);
  real_loop_.reset();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace skiff::loop
