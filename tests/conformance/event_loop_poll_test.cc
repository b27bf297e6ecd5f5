// SPDX-License-Identifier: GPL-2.0-or-later
// Spinning before sleeping, whatever is under the loop.
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "tests/conformance/event_loop_suite.h"

namespace skiff::loop {
namespace {

class EventLoopPollTest : public EventLoopTest {
 protected:
  static constexpr int64_t kMaxNs = 1'000'000'000;

  struct FakePoller : Poller {
    explicit FakePoller(EventLoopPollTest& to_test)
        : test(to_test), half(to_test.manual(), Priority::kSubmission, [this] {
            ready = false;
            ++runs;
          }) {
      test.manual().add_poller(*this);
    }
    ~FakePoller() override { test.manual().remove_poller(*this); }
    bool is_ready() const override {
      if (on_look) on_look();
      return ready;
    }
    void begin_polling() override {
      ++begun;
      polling = true;
    }
    bool end_polling() override {
      polling = false;
      if (on_end) on_end();
      if (ready) half.schedule();
      return ready;
    }
    EventLoopPollTest& test;
    BottomHalf half;
    std::function<void()> on_look;
    std::function<void()> on_end;
    bool ready = false;
    std::atomic<bool> polling{false};
    int begun = 0;
    int runs = 0;
  };

  void SetUp() override {
    EventLoopTest::SetUp();
    if (IsSkipped()) return;
    manual().set_poll_max_ns(kMaxNs);
    manual().run_once(EventLoop::Wait::kNo);
  }

  // From now on the loop spins for 2 * reach_ns of the manual clock.
  void teach(FakePoller& poller, int64_t reach_ns) {
    bool first = true;
    poller.ready = true;
    poller.on_look = [&] {
      if (std::exchange(first, false)) clock_.advance_ns(reach_ns);
    };
    manual().post([&poller] { poller.ready = false; });
    manual().run_once(EventLoop::Wait::kUntilEvent);
    poller.on_look = {};
  }
};

INSTANTIATE_TEST_SUITE_P(Loops, EventLoopPollTest, ::testing::ValuesIn(kLoopKinds), loop_kind_name);

TEST_P(EventLoopPollTest, WorkThatComesWhileItLooksRunsWithoutASleep) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  const LoopCounters before = manual().counters();
  int looks = 0;
  poller.on_look = [&] {
    clock_.advance_ns(10);
    poller.ready = ++looks > 20;
  };
  EXPECT_TRUE(manual().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(poller.runs, 1);
  EXPECT_EQ(poller.begun, 1);
  EXPECT_FALSE(poller.polling);
  const LoopCounters after = manual().counters();
  EXPECT_EQ(after.sleeps, before.sleeps);
  EXPECT_EQ(after.poll_hits, before.poll_hits + 1);
  EXPECT_EQ(after.poll_misses, before.poll_misses);
  EXPECT_GE(after.poll_spun_ns, before.poll_spun_ns + 200);
}

TEST_P(EventLoopPollTest, SpinThatFindsNothingEndsPollingBeforeItSleeps) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  // Time stands still while it sleeps: this bounds the sleep, and does not expire.
  Timer bound(manual(), Priority::kDevice, [] { FAIL(); });
  bound.arm_after(1'000'000);
  const LoopCounters before = manual().counters();
  poller.on_look = [&] {
    if (poller.polling) clock_.advance_ns(100);
  };
  uint64_t sleeps_at_end = 0;
  poller.on_end = [&] { sleeps_at_end = manual().counters().sleeps; };
  EXPECT_FALSE(manual().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(poller.begun, 1);
  EXPECT_FALSE(poller.polling);
  EXPECT_EQ(sleeps_at_end, before.sleeps);
  const LoopCounters after = manual().counters();
  EXPECT_EQ(after.sleeps, before.sleeps + 1);
  EXPECT_EQ(after.poll_misses, before.poll_misses + 1);
  EXPECT_EQ(after.poll_hits, before.poll_hits);
}

TEST_P(EventLoopPollTest, WorkFoundOnLeavingKeepsItFromSleeping) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  poller.on_look = [&] { clock_.advance_ns(100); };
  poller.on_end = [&] { poller.ready = true; };  // Came between the last look and the switch.
  const uint64_t sleeps = manual().counters().sleeps;
  EXPECT_TRUE(manual().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(poller.runs, 1);
  EXPECT_EQ(manual().counters().sleeps, sleeps);
}

TEST_P(EventLoopPollTest, SpinEndsAtTheNextDeadline) {
  FakePoller poller(*this);
  teach(poller, 1'000'000);
  int expired = 0;
  Timer timer(manual(), Priority::kDevice, [&expired] { ++expired; });
  timer.arm_after(5'000);
  poller.on_look = [&] {
    if (poller.polling) clock_.advance_ns(1'000);
  };
  const LoopCounters before = manual().counters();
  EXPECT_TRUE(manual().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(expired, 1);
  const LoopCounters after = manual().counters();
  EXPECT_EQ(after.sleeps, before.sleeps);
  EXPECT_EQ(after.poll_hits + after.poll_misses, before.poll_hits + before.poll_misses);
}

TEST_P(EventLoopPollTest, NothingIsPolledWhileMessagesOrTimersAreDue) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  manual().post([] {});
  EXPECT_TRUE(manual().run_once(EventLoop::Wait::kUntilEvent));
  Timer timer(manual(), Priority::kDevice, [] {});
  timer.arm_after(0);
  EXPECT_TRUE(manual().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(poller.begun, 0);
}

TEST_P(EventLoopPollTest, TurnThatMayNotWaitDoesNotSpin) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  EXPECT_FALSE(manual().run_once(EventLoop::Wait::kNo));
  EXPECT_EQ(poller.begun, 0);
}

TEST_P(EventLoopPollTest, ForbiddenToSpinItSleepsAtOnce) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  manual().set_poll_max_ns(0);
  Timer bound(manual(), Priority::kDevice, [] {});
  bound.arm_after(1'000'000);
  const uint64_t sleeps = manual().counters().sleeps;
  manual().run_once(EventLoop::Wait::kUntilEvent);
  EXPECT_EQ(poller.begun, 0);
  EXPECT_EQ(manual().counters().sleeps, sleeps + 1);
}

TEST_P(EventLoopPollTest, WhoSendsToASpinningLoopPaysNoWake) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  const LoopCounters before = manual().counters();
  bool ran = false;
  // The clock stands still: it spins until the message comes.
  Thread other = start_thread([&] {
    while (!poller.polling) sched_yield();
    manual().post([&ran] { ran = true; });
  });
  EXPECT_TRUE(manual().run_once(EventLoop::Wait::kUntilEvent));
  other.join();
  EXPECT_TRUE(ran);
  EXPECT_EQ(manual().counters().wakes, before.wakes);
  EXPECT_EQ(manual().counters().sleeps, before.sleeps);
}

TEST_P(EventLoopPollTest, StopEndsASpin) {
  FakePoller poller(*this);
  teach(poller, 1'000);
  Thread other = start_thread([&] {
    while (!poller.polling) sched_yield();
    manual().stop();
  });
  manual().run();
  other.join();
  EXPECT_EQ(poller.begun, 1);
}

// A virtqueue in small: the driver counts up and notifies if it is asked to; the device asks for it
// unless it looks by itself.
class LittleQueue final : public Poller {
 public:
  LittleQueue(EventLoop& loop, EventNotifier& doorbell)
      : loop_(loop),
        doorbell_(doorbell),
        half_(loop, Priority::kSubmission, [this] { serve(); }),
        watch_(loop, doorbell, Priority::kSubmission, [this] { serve(); }) {
    loop_.add_poller(*this);
  }
  ~LittleQueue() override { loop_.remove_poller(*this); }

  // The driver's thread. True if it had to notify.
  bool offer() {
    offered_.fetch_add(1);
    if (!wants_notification_.load()) return false;
    doorbell_.notify();
    return true;
  }
  uint64_t served() const { return served_.load(); }

  bool is_ready() const override { return offered_.load() != served_.load(); }
  void begin_polling() override { wants_notification_.store(false); }
  bool end_polling() override {
    wants_notification_.store(true);
    if (!is_ready()) return false;
    half_.schedule();
    return true;
  }

 private:
  void serve() { served_.store(offered_.load()); }

  EventLoop& loop_;
  EventNotifier& doorbell_;
  std::atomic<uint64_t> offered_{0};
  std::atomic<uint64_t> served_{0};
  std::atomic<bool> wants_notification_{true};
  BottomHalf half_;
  NotifierWatch watch_;
};

TEST_P(EventLoopPollTest, NoNotificationIsLostBetweenPollingAndSleeping) {
  Result<EventNotifier> doorbell = EventNotifier::create();
  ASSERT_TRUE(doorbell);
  loop().set_poll_max_ns(30'000);
  LittleQueue queue(loop(), *doorbell);
  loop().run_once(EventLoop::Wait::kNo);
  constexpr uint64_t kRounds = 20'000;
  uint64_t notified = 0;
  Thread driver = start_thread([&] {
    for (uint64_t round = 1; round <= kRounds; ++round) {
      notified += queue.offer() ? 1 : 0;
      while (queue.served() != round) sched_yield();
      // So that the next one meets it looking, leaving, asleep.
      for (uint64_t i = 0; i < round * 7 % 400; ++i) queue.served();
      if (round % 64 == 0) sched_yield();
    }
    loop().stop();
  });
  loop().run();
  driver.join();
  EXPECT_EQ(queue.served(), kRounds);
  const LoopCounters counters = loop().counters();
  RecordProperty("notified", static_cast<int>(notified));
  RecordProperty("hits", static_cast<int>(counters.poll_hits));
  RecordProperty("misses", static_cast<int>(counters.poll_misses));
}

}  // namespace
}  // namespace skiff::loop
