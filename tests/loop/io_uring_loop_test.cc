// SPDX-License-Identifier: GPL-2.0-or-later
// What only a loop with a ring can do: I/O on it, and interrupting its thread.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/ring.h"
#include "loop/thread.h"
#include "loop/unique_fd.h"

namespace skiff::loop {
namespace {

struct Operation : RingOperation {
  Operation() {
    done = [](RingOperation& self, int32_t ended_with, uint32_t) {
      auto& operation = static_cast<Operation&>(self);
      operation.result = ended_with;
      ++operation.completions;
    };
  }
  int32_t result = 0;
  int completions = 0;
};

class IoUringLoopTest : public ::testing::TestWithParam<EventLoop::TaskWork> {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<EventLoop>> made =
        EventLoop::create({.backend = EventLoop::Backend::kIoUring, .task_work = GetParam()});
    if (!made) GTEST_SKIP() << "NO IO_URING HERE: " << made.error().message();
    loop_ = *std::move(made);
  }
  EventLoop& loop() { return *loop_; }

  void turn_until_done(const Operation& operation) {
    while (operation.completions == 0) loop().run_once(EventLoop::Wait::kUntilEvent);
  }

  std::unique_ptr<EventLoop> loop_;
};

INSTANTIATE_TEST_SUITE_P(TaskWork, IoUringLoopTest,
                         ::testing::Values(EventLoop::TaskWork::kDeferred,
                                           EventLoop::TaskWork::kInterrupt),
                         [](const auto& mode) {
                           return mode.param == EventLoop::TaskWork::kDeferred ? "Deferred"
                                                                               : "Interrupt";
                         });

TEST_P(IoUringLoopTest, ReadsAFile) {
  std::string path = ::testing::TempDir() + "skiff-loop-XXXXXX";
  const UniqueFd file(mkstemp(path.data()));
  ASSERT_TRUE(file);
  unlink(path.c_str());
  std::vector<char> data(16384);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 31 / 7);
  ASSERT_EQ(::write(file.get(), data.data(), data.size()), static_cast<ssize_t>(data.size()));

  std::array<Operation, 4> reads;
  std::vector<char> got(data.size());
  for (size_t i = 0; i < reads.size(); ++i) {
    io_uring_prep_read(loop().next_sqe(reads[i]), file.get(), got.data() + i * 4096, 4096,
                       i * 4096);
    EXPECT_EQ(reads[i].completions, 0);
  }
  for (const Operation& read : reads) {
    turn_until_done(read);
    EXPECT_EQ(read.result, 4096);
    EXPECT_EQ(read.completions, 1);
  }
  EXPECT_EQ(got, data);

  Operation past_end;
  io_uring_prep_read(loop().next_sqe(past_end), file.get(), got.data(), 4096, data.size());
  turn_until_done(past_end);
  EXPECT_EQ(past_end.result, 0);
  Operation bad;
  io_uring_prep_read(loop().next_sqe(bad), -1, got.data(), 4096, 0);
  turn_until_done(bad);
  EXPECT_EQ(bad.result, -EBADF);
}

TEST_P(IoUringLoopTest, MoreOperationsThanTheQueuesHoldCompleteOnceEachAndNoneInsideNextSqe) {
  constexpr size_t kOperations = 5000;
  std::vector<Operation> operations(kOperations);
  size_t completed_inside = 0;
  loop().post([&] {
    for (Operation& operation : operations) {
      io_uring_prep_nop(loop().next_sqe(operation));
      completed_inside += static_cast<size_t>(operations.front().completions);
    }
  });
  while (operations.back().completions == 0) loop().run_once(EventLoop::Wait::kUntilEvent);
  EXPECT_EQ(completed_inside, 0U);
  for (const Operation& operation : operations) ASSERT_EQ(operation.completions, 1);
}

TEST_P(IoUringLoopTest, OneEnterPerTurnSubmitsWaitsAndReaps) {
  loop().run_once(EventLoop::Wait::kNo);
  const LoopCounters before = loop().counters();
  Operation nop;
  loop().post([&] { io_uring_prep_nop(loop().next_sqe(nop)); });
  loop().run_once(EventLoop::Wait::kNo);
  turn_until_done(nop);
  const LoopCounters after = loop().counters();
  EXPECT_LE(after.enters - before.enters, after.turns - before.turns);
}

TEST_P(IoUringLoopTest, SubmittingAheadOfTheTurnCompletesInALaterTurnAsUsual) {
  loop().run_once(EventLoop::Wait::kNo);
  Operation nop;
  io_uring_sqe* sqe = loop().next_sqe(nop);
  sqe->opcode = IORING_OP_NOP;
  const uint64_t enters = loop().counters().enters;
  loop().submit_sqes();
  EXPECT_EQ(loop().counters().enters, enters + 1);
  EXPECT_EQ(nop.completions, 0);
  loop().submit_sqes();  // Nothing is left to hand over.
  EXPECT_EQ(loop().counters().enters, enters + 1);
  turn_until_done(nop);
  EXPECT_EQ(nop.result, 0);
}

TEST_P(IoUringLoopTest, CompletionsOfOperationsHaveABudgetToo) {
  constexpr size_t kOperations = 150;
  std::vector<Operation> operations(kOperations);
  for (Operation& operation : operations) io_uring_prep_nop(loop().next_sqe(operation));
  size_t largest = 0;
  size_t total = 0;
  while (total < kOperations) {
    loop().run_once(EventLoop::Wait::kUntilEvent);
    size_t now = 0;
    for (const Operation& operation : operations) now += static_cast<size_t>(operation.completions);
    largest = std::max(largest, now - total);
    total = now;
  }
  EXPECT_LE(largest, 64U);
}

TEST_P(IoUringLoopTest, RingIsClosedOnExec) {
  const std::unique_ptr<DIR, int (*)(DIR*)> fds(opendir("/proc/self/fd"), closedir);
  ASSERT_NE(fds, nullptr);
  int rings = 0;
  while (const dirent* entry = readdir(fds.get())) {
    std::array<char, PATH_MAX> target{};
    if (readlinkat(dirfd(fds.get()), entry->d_name, target.data(), target.size() - 1) < 0) continue;
    if (std::string(target.data()).find("io_uring") == std::string::npos) continue;
    ++rings;
    EXPECT_EQ(fcntl(atoi(entry->d_name), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
  EXPECT_GE(rings, 1);
}

// epoll_pwait() on a foreign set stands in for KVM_RUN: both end with EINTR when task work is
// delivered in them, and for a signal that is let in only there (or that sets immediate_exit) even
// if it came before.
class InterruptedThreadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    signal(SIGUSR1, [](int) {});
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, &signals_in_guest_);
    sigdelset(&signals_in_guest_, SIGUSR1);
    make_loop({});
  }

  void make_loop(std::function<void()> kick) {
    loop_.reset();
    Result<std::unique_ptr<EventLoop>> made =
        EventLoop::create({.backend = EventLoop::Backend::kIoUring,
                           .task_work = EventLoop::TaskWork::kInterrupt,
                           .kick = std::move(kick)});
    if (!made) GTEST_SKIP() << "NO IO_URING HERE: " << made.error().message();
    loop_ = *std::move(made);
  }

  // True if it was interrupted; the timeout bounds a failure.
  bool run_guest(int timeout_ms) {
    epoll_event event{};
    in_guest_ = gettid();
    const int result = epoll_pwait(guest_.get(), &event, 1, timeout_ms, &signals_in_guest_);
    in_guest_ = 0;
    return result == -1 && errno == EINTR;
  }

  // On another thread: returns when this one sleeps in its guest.
  void await_guest() {
    while (true) {
      const pid_t thread = in_guest_;
      std::ifstream stat("/proc/self/task/" + std::to_string(thread) + "/stat");
      std::string id;
      std::string name;
      char state = 0;
      if (thread != 0 && stat >> id >> name >> state && state == 'S') return;
      sched_yield();
    }
  }

  void turn_until_idle() {
    while (loop_->run_once(EventLoop::Wait::kNo)) {
    }
  }

  static constexpr int kFarTooLongMs = 20'000;

  std::unique_ptr<EventLoop> loop_;
  UniqueFd guest_{epoll_create1(EPOLL_CLOEXEC)};
  std::atomic<pid_t> in_guest_{0};
  sigset_t signals_in_guest_{};
};

TEST_F(InterruptedThreadTest, PostFromAnotherThreadEndsTheGuestsRun) {
  turn_until_idle();
  int runs = 0;
  Result<Thread> other = Thread::create({.name = "poster"}, [&] {
    await_guest();
    loop_->post([&runs] { ++runs; });
  });
  ASSERT_TRUE(other);
  while (runs == 0) {
    ASSERT_TRUE(run_guest(kFarTooLongMs));
    turn_until_idle();
  }
  other->join();
  EXPECT_EQ(loop_->counters().wakes, 1U);
}

TEST_F(InterruptedThreadTest, KickedThreadMissesNoPostWhateverTheMoment) {
  const pthread_t self = pthread_self();
  make_loop([self] { pthread_kill(self, SIGUSR1); });
  if (!loop_) return;
  constexpr int kPosts = 3000;
  int runs = 0;
  turn_until_idle();
  Result<Thread> other = Thread::create({.name = "poster"}, [&] {
    for (int i = 0; i < kPosts; ++i) {
      std::atomic<bool> ran{false};
      loop_->post([&] {
        ++runs;
        ran = true;
      });
      while (!ran) sched_yield();  // So that the next one meets a thread on its way to its guest.
    }
  });
  ASSERT_TRUE(other);
  while (runs < kPosts) {
    if (!run_guest(kFarTooLongMs)) {
      ADD_FAILURE() << "slept through a post after " << runs;
      loop_->run_once(EventLoop::Wait::kNo);
    }
    turn_until_idle();
  }
}

TEST_F(InterruptedThreadTest, TimerEndsTheGuestsRun) {
  int runs = 0;
  Timer late(*loop_, Priority::kRealTime, [&runs] { runs += 100; });
  Timer early(*loop_, Priority::kRealTime, [&runs] { ++runs; });
  late.arm_after(3'600'000'000'000);
  turn_until_idle();
  // A thread that is preempted for 20 ms just before its guest would miss the timer.
  constexpr int kAttempts = 10;
  int ended_by_timer = 0;
  for (int attempt = 0; attempt < kAttempts && ended_by_timer < 2; ++attempt) {
    early.arm_after(20'000'000);  // Earlier than what the kernel has been told.
    turn_until_idle();
    const int runs_before = runs;
    while (runs == runs_before && run_guest(2'000)) {
      turn_until_idle();
      if (runs != runs_before) ++ended_by_timer;
    }
  }
  EXPECT_EQ(ended_by_timer, 2);
}

TEST_F(InterruptedThreadTest, CompletionEndsTheGuestsRun) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  Operation read;
  char byte = 0;
  io_uring_prep_read(loop_->next_sqe(read), read_end.get(), &byte, 1, 0);
  turn_until_idle();  // Hands it to the kernel.
  Result<Thread> other = Thread::create({.name = "writer"}, [&] {
    await_guest();
    EXPECT_EQ(::write(write_end.get(), "!", 1), 1);
  });
  ASSERT_TRUE(other);
  while (read.completions == 0) {
    ASSERT_TRUE(run_guest(kFarTooLongMs));
    turn_until_idle();
  }
  EXPECT_EQ(read.result, 1);
  EXPECT_EQ(byte, '!');
}

TEST_F(InterruptedThreadTest, LoopWithAnUnseenWakeIsDestroyedWithoutWaiting) {
  turn_until_idle();
  Result<Thread> other =
      Thread::create({.name = "poster"}, [&] { loop_->post([] { FAIL() << "never turned"; }); });
  ASSERT_TRUE(other);
  other->join();
  loop_.reset();
}

TEST_P(IoUringLoopTest, FixedFileIsReadByItsIndexUntilItIsUnregistered) {
  const UniqueFd zero(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const std::optional<uint32_t> index = loop().register_file(zero.get());
  ASSERT_TRUE(index);
  const auto read = [&] {
    std::array<char, 16> buffer;
    buffer.fill('x');
    Operation operation;
    io_uring_sqe* sqe = loop().next_sqe(operation);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = static_cast<int>(*index);
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->addr = reinterpret_cast<uint64_t>(buffer.data());
    sqe->len = buffer.size();
    turn_until_done(operation);
    return operation.result;
  };
  EXPECT_EQ(read(), 16);
  loop().unregister_file(*index);
  EXPECT_EQ(read(), -EBADF);
  // The slot is free again, and there is an end to them.
  EXPECT_EQ(loop().register_file(zero.get()), index);
  uint32_t more = 0;
  while (loop().register_file(zero.get())) ASSERT_LT(++more, 10'000u);
  EXPECT_GE(more, 30u);
  EXPECT_EQ(loop().register_file(-1), std::nullopt);
}

TEST_P(IoUringLoopTest, KernelIsAskedWhatItKnows) {
  EXPECT_TRUE(loop().ring_supports(IORING_OP_READ));
  EXPECT_TRUE(loop().ring_supports(IORING_OP_FALLOCATE));
  EXPECT_FALSE(loop().ring_supports(0xfe));
}

TEST(RingTest, DeferredRingStartsDisabledAndServesTheThreadThatEnablesIt) {
  Result<std::unique_ptr<Ring>> ring = Ring::create({});
  if (!ring) GTEST_SKIP() << "NO IO_URING HERE: " << ring.error().message();
  if (((*ring)->setup_flags() & IORING_SETUP_SINGLE_ISSUER) == 0)
    GTEST_SKIP() << "this kernel has no SINGLE_ISSUER";
  EXPECT_FALSE((*ring)->enabled());
  EXPECT_EQ((*ring)->setup_flags() & IORING_SETUP_COOP_TASKRUN, 0U);
  int here = 0;
  Result<Thread> other = Thread::create({.name = "issuer"}, [&] {
    (*ring)->enable();
    (*ring)->next_sqe()->opcode = IORING_OP_NOP;
    EXPECT_EQ((*ring)->enter(Ring::Enter::kWait), 0);
    Ring::Completion completion;
    EXPECT_TRUE((*ring)->pop(completion));
  });
  ASSERT_TRUE(other);
  other->join();
  here = (*ring)->enter(Ring::Enter::kReap);
  EXPECT_EQ(here, -EEXIST);
}

TEST(RingTest, InterruptRingHasNeitherDeferredNorCooperativeTaskWork) {
  Result<std::unique_ptr<Ring>> ring = Ring::create({.deferred_task_work = false});
  if (!ring) GTEST_SKIP() << "NO IO_URING HERE: " << ring.error().message();
  EXPECT_EQ((*ring)->setup_flags() & (IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
                                      IORING_SETUP_SINGLE_ISSUER),
            0U);
}

}  // namespace
}  // namespace skiff::loop
