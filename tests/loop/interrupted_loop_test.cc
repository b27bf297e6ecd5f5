// SPDX-License-Identifier: GPL-2.0-or-later
// What a vCPU's thread asks of its loop around KVM_RUN, without a vCPU: is it idle, and when must
// the guest be left.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/unique_fd.h"

namespace skiff::loop {
namespace {

class InterruptedLoopTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<EventLoop>> made = EventLoop::create({
        .backend = EventLoop::Backend::kIoUring,
        .task_work = EventLoop::TaskWork::kInterrupt,
        .kick = [this] { ++kicks_; },
        .kick_at = [this](int64_t at_ns) { kicks_at_.push_back(at_ns); },
    });
    if (!made) GTEST_SKIP() << "NO IO_URING HERE: " << made.error().message();
    loop_ = *std::move(made);
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
    read_end_.reset(ends[0]);
    write_end_.reset(ends[1]);
  }
  void turn_until_idle() {
    do loop_->run_once(EventLoop::Wait::kNo);
    while (!loop_->is_idle());
  }
  // A read of the pipe on the ring, which ends when a byte is written.
  void start_read() {
    read_.done = [](RingOperation&, int32_t, uint32_t) {};
    io_uring_prep_read(loop_->next_sqe(read_), read_end_.get(), &byte_, 1, 0);
  }
  void end_read() { EXPECT_EQ(::write(write_end_.get(), "x", 1), 1); }
  void on_another_thread(std::function<void()> body) {
    Result<Thread> other = Thread::create({.name = "other"}, std::move(body));
    ASSERT_TRUE(other);
  }
  int64_t from_now_ns(int64_t at_ns) const { return at_ns - clock_.now_ns(); }

  MonotonicClock clock_;
  std::unique_ptr<EventLoop> loop_;
  std::atomic<int> kicks_{0};
  std::vector<int64_t> kicks_at_;
  UniqueFd read_end_;
  UniqueFd write_end_;
  RingOperation read_;
  char byte_ = 0;
};

TEST_F(InterruptedLoopTest, IsIdleOnlyAfterATurnThatLeftNothing) {
  EXPECT_FALSE(loop_->is_idle()) << "it has not turned";
  turn_until_idle();
  EXPECT_TRUE(loop_->is_idle());
  BottomHalf half(*loop_, Priority::kDevice, [] {});
  EXPECT_TRUE(loop_->is_idle());
  half.schedule();
  EXPECT_FALSE(loop_->is_idle());
  turn_until_idle();
  EXPECT_TRUE(loop_->is_idle());
}

TEST_F(InterruptedLoopTest, EntriesThatAreNotSubmittedAndCompletionsAreWorkForATurn) {
  turn_until_idle();
  start_read();
  EXPECT_FALSE(loop_->is_idle()) << "not with the kernel yet";
  turn_until_idle();
  end_read();
  EXPECT_FALSE(loop_->is_idle()) << "a completion waits";
  const uint64_t operations = loop_->counters().operations;
  turn_until_idle();
  EXPECT_EQ(loop_->counters().operations, operations + 1);
}

TEST_F(InterruptedLoopTest, MessagesAndStopsAreWorkForATurn) {
  turn_until_idle();
  on_another_thread([this] { loop_->post([] {}); });
  EXPECT_FALSE(loop_->is_idle());
  EXPECT_EQ(kicks_, 1);
  turn_until_idle();
  on_another_thread([this] { loop_->stop(); });
  EXPECT_FALSE(loop_->is_idle()) << "or the next sender would not kick";
  EXPECT_EQ(kicks_, 2);
  turn_until_idle();
}

TEST_F(InterruptedLoopTest, AskingCostsNoSystemCall) {
  turn_until_idle();
  const LoopCounters before = loop_->counters();
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(loop_->is_idle());
  EXPECT_EQ(loop_->counters().enters, before.enters);
  EXPECT_EQ(loop_->counters().turns, before.turns);
}

TEST_F(InterruptedLoopTest, KickedLoopIsToldOfAMessageByTheKickAlone) {
  turn_until_idle();
  const LoopCounters before = loop_->counters();
  on_another_thread([this] { loop_->post([] {}); });
  EXPECT_EQ(kicks_, 1);
  turn_until_idle();
  EXPECT_EQ(loop_->counters().enters, before.enters) << "no eventfd had to be read";
}

TEST_F(InterruptedLoopTest, WaitingLoopIsWokenWithoutAKick) {
  turn_until_idle();
  Result<Thread> other = Thread::create({.name = "other"}, [this] {
    while (loop_->counters().sleeps == 0) sched_yield();
    loop_->post([] {});
  });
  ASSERT_TRUE(other);
  while (!loop_->run_once(EventLoop::Wait::kUntilEvent)) {
  }
  other->join();
  EXPECT_EQ(kicks_, 0);
}

TEST_F(InterruptedLoopTest, TimerAsksToBeKickedWhenItIsDueAndOnlyIfThatIsEarlier) {
  turn_until_idle();
  EXPECT_TRUE(kicks_at_.empty());
  Timer late(*loop_, Priority::kDevice, [] {});
  Timer early(*loop_, Priority::kDevice, [] {});
  early.arm_after(1'000'000'000);
  EXPECT_FALSE(loop_->is_idle()) << "nobody has been told";
  turn_until_idle();
  ASSERT_EQ(kicks_at_.size(), 1u);
  EXPECT_LE(from_now_ns(kicks_at_[0]), 1'000'000'000);
  EXPECT_GT(from_now_ns(kicks_at_[0]), 0);
  late.arm_after(3'000'000'000);
  turn_until_idle();
  EXPECT_EQ(kicks_at_.size(), 1u) << "it will look again before that";
  early.arm_after(500'000'000);
  EXPECT_FALSE(loop_->is_idle());
  turn_until_idle();
  ASSERT_EQ(kicks_at_.size(), 2u);
  EXPECT_LE(from_now_ns(kicks_at_[1]), 500'000'000);
  early.cancel();
  EXPECT_TRUE(loop_->is_idle()) << "a kick too many does no harm";
}

TEST_F(InterruptedLoopTest, OperationInFlightIsGuardedAMillisecondAtATime) {
  turn_until_idle();
  start_read();
  const int64_t before_ns = clock_.now_ns();
  turn_until_idle();
  ASSERT_EQ(kicks_at_.size(), 1u);
  EXPECT_GE(kicks_at_[0], before_ns);
  EXPECT_LE(from_now_ns(kicks_at_[0]), 1'000'000);
  turn_until_idle();
  EXPECT_LE(kicks_at_.size(), 2u) << "one that is pending will do";
  while (clock_.now_ns() <= kicks_at_.back()) {
  }
  const size_t asked = kicks_at_.size();
  loop_->run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(kicks_at_.size(), asked + 1) << "still in flight";

  end_read();
  turn_until_idle();
  while (clock_.now_ns() <= kicks_at_.back()) {
  }
  const size_t at_the_end = kicks_at_.size();
  loop_->run_once(EventLoop::Wait::kNo);
  EXPECT_EQ(kicks_at_.size(), at_the_end) << "nothing is left to guard";
}

TEST_F(InterruptedLoopTest, WatchedDescriptorIsGuardedToo) {
  turn_until_idle();
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  NotifierWatch watch(*loop_, *notifier, Priority::kDevice, [] {});
  turn_until_idle();
  ASSERT_EQ(kicks_at_.size(), 1u);
  EXPECT_GT(from_now_ns(kicks_at_[0]), 1'000'000);
  EXPECT_LE(from_now_ns(kicks_at_[0]), 50'000'000);
}

}  // namespace
}  // namespace skiff::loop
