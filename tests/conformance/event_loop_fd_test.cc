// SPDX-License-Identifier: GPL-2.0-or-later
// How every event loop must watch descriptors and notifiers.
#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "tests/conformance/event_loop_suite.h"

namespace skiff::loop {
namespace {

using ::testing::ElementsAre;

class EventLoopFdTest : public EventLoopTest {};

INSTANTIATE_TEST_SUITE_P(Loops, EventLoopFdTest, ::testing::ValuesIn(kLoopKinds), loop_kind_name);

TEST_P(EventLoopFdTest, WatcherIsCalledForAsLongAsTheDescriptorIsReady) {
  Pipe pipe;
  int calls = 0;
  FdWatcher watcher(loop(), pipe.read_end.get(), Priority::kDevice, [&](uint32_t ready) {
    EXPECT_EQ(ready, static_cast<uint32_t>(POLLIN));
    if (++calls == 3) pipe.read_byte();
  });
  watcher.watch(POLLIN);
  EXPECT_FALSE(loop().run_once(EventLoop::Wait::kNo));
  pipe.write_byte();
  run_until_idle(loop());
  EXPECT_EQ(calls, 3);
  pipe.write_byte();
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(calls, 4);
}

TEST_P(EventLoopFdTest, WatcherHearsOnlyOfWhatItAskedForLast) {
  std::array<int, 2> ends{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
  const UniqueFd mine(ends[0]);
  const UniqueFd theirs(ends[1]);
  std::vector<uint32_t> seen;
  FdWatcher watcher(loop(), mine.get(), Priority::kDevice,
                    [&seen](uint32_t ready) { seen.push_back(ready); });
  watcher.watch(POLLIN);
  run_until_idle(loop());
  EXPECT_TRUE(seen.empty());
  watcher.watch(POLLOUT);
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_THAT(seen, ElementsAre(static_cast<uint32_t>(POLLOUT)));
  watcher.watch(POLLIN);
  run_until_idle(loop());
  EXPECT_EQ(seen.size(), 1U);
  watcher.watch(0);
  ASSERT_EQ(::write(theirs.get(), "x", 1), 1);
  run_until_idle(loop());
  EXPECT_EQ(seen.size(), 1U);
  watcher.watch(POLLIN | POLLOUT);
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(seen.back(), static_cast<uint32_t>(POLLIN | POLLOUT));
}

TEST_P(EventLoopFdTest, HangUpIsReportedUnasked) {
  Pipe pipe;
  uint32_t seen = 0;
  FdWatcher watcher(loop(), pipe.read_end.get(), Priority::kDevice, [&](uint32_t ready) {
    seen = ready;
    watcher.watch(0);
  });
  watcher.watch(POLLIN);
  pipe.write_end.reset();
  run_until_idle(loop());
  EXPECT_NE(seen & POLLHUP, 0U);
}

TEST_P(EventLoopFdTest, TwoWatchersOfOneDescriptorBothHear) {
  Pipe pipe;
  int first = 0;
  int second = 0;
  FdWatcher one(loop(), pipe.read_end.get(), Priority::kDevice, [&](uint32_t) {
    ++first;
    one.watch(0);
  });
  FdWatcher two(loop(), pipe.read_end.get(), Priority::kDevice, [&](uint32_t) {
    ++second;
    two.watch(0);
  });
  one.watch(POLLIN);
  two.watch(POLLIN);
  pipe.write_byte();
  run_until_idle(loop());
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 1);
}

TEST_P(EventLoopFdTest, RegularFileIsAlwaysReady) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(file);
  int calls = 0;
  FdWatcher watcher(loop(), file.get(), Priority::kDevice, [&](uint32_t ready) {
    EXPECT_EQ(ready & POLLIN, static_cast<uint32_t>(POLLIN));
    if (++calls == 2) watcher.watch(0);
  });
  watcher.watch(POLLIN);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_FALSE(loop().run_once(EventLoop::Wait::kNo));
  EXPECT_EQ(calls, 2);
}

TEST_P(EventLoopFdTest, BadDescriptorIsReportedAsSuch) {
  uint32_t seen = 0;
  FdWatcher watcher(loop(), 1'000'000, Priority::kDevice, [&](uint32_t ready) {
    seen = ready;
    watcher.watch(0);
  });
  watcher.watch(POLLIN);
  loop().run_once(EventLoop::Wait::kUntilEvent);
  EXPECT_EQ(seen, static_cast<uint32_t>(POLLNVAL));
}

TEST_P(EventLoopFdTest, WatcherMayDestroyItselfAndOthersThatAreReadyToo) {
  std::array<Pipe, 4> pipes;
  std::array<std::unique_ptr<FdWatcher>, 4> watchers;
  int calls = 0;
  for (size_t i = 0; i < watchers.size(); ++i) {
    watchers[i] = std::make_unique<FdWatcher>(loop(), pipes[i].read_end.get(), Priority::kDevice,
                                              [&](uint32_t) {
                                                ++calls;
                                                for (auto& watcher : watchers) watcher.reset();
                                              });
    watchers[i]->watch(POLLIN);
    pipes[i].write_byte();
  }
  run_until_idle(loop());
  EXPECT_EQ(calls, 1);
}

TEST_P(EventLoopFdTest, DescriptorClosedAfterItsWatcherIsReallyGone) {
  Pipe pipe;
  auto watcher =
      std::make_unique<FdWatcher>(loop(), pipe.read_end.get(), Priority::kDevice, [](uint32_t) {});
  watcher->watch(POLLIN);
  run_until_idle(loop());
  watcher.reset();
  pipe.read_end.reset();
  signal(SIGPIPE, SIG_IGN);
  // No turn in between: nothing but the watcher's request could hold the file open.
  EXPECT_EQ(::write(pipe.write_end.get(), "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(EventLoopFdTest, WatcherMadeAndDestroyedBeforeTheFirstTurnLeavesNothing) {
  int calls = 0;
  {
    Pipe pipe;
    pipe.write_byte();
    FdWatcher watcher(loop(), pipe.read_end.get(), Priority::kDevice,
                      [&calls](uint32_t) { ++calls; });
    watcher.watch(POLLIN);
  }
  EXPECT_FALSE(loop().run_once(EventLoop::Wait::kNo));
  EXPECT_EQ(calls, 0);
}

TEST_P(EventLoopFdTest, ManyNotificationsBeforeATurnAreFewCalls) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  int calls = 0;
  NotifierWatch watch(loop(), *notifier, Priority::kSubmission, [&calls] { ++calls; });
  run_until_idle(loop());
  EXPECT_EQ(calls, 0);
  for (int i = 0; i < 50; ++i) notifier->notify();
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  run_until_idle(loop());
  // An interruptible ring reads the first one at once, and what came later after that.
  const int most = GetParam().task_work == EventLoop::TaskWork::kInterrupt ? 2 : 1;
  EXPECT_GE(calls, 1);
  EXPECT_LE(calls, most);
  EXPECT_FALSE(notifier->consume());
  calls = 0;
  notifier->notify();
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(calls, 1);
}

TEST_P(EventLoopFdTest, NotificationFromTheCallbackIsAnotherCall) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  int calls = 0;
  NotifierWatch watch(loop(), *notifier, Priority::kSubmission, [&] {
    if (++calls == 1) notifier->notify();
  });
  notifier->notify();
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(calls, 2);
}

TEST_P(EventLoopFdTest, NotificationIsNotLostWhenItsWatchGoesUncalled) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  int calls = 0;
  auto watch =
      std::make_unique<NotifierWatch>(loop(), *notifier, Priority::kDevice, [&calls] { ++calls; });
  run_until_idle(loop());
  // In one turn the notification arrives and the watch goes before its callback could run.
  BottomHalf destroyer(loop(), Priority::kRealTime, [&watch] { watch.reset(); });
  destroyer.schedule();
  notifier->notify();
  run_until_idle(loop());
  EXPECT_EQ(calls, 0);
  NotifierWatch next(loop(), *notifier, Priority::kDevice, [&calls] { ++calls; });
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(calls, 1);
}

TEST_P(EventLoopFdTest, NotificationJustBeforeItsWatchGoesIsNotLostEither) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  auto watch = std::make_unique<NotifierWatch>(loop(), *notifier, Priority::kDevice, [] {});
  run_until_idle(loop());
  notifier->notify();
  watch.reset();
  EXPECT_TRUE(notifier->consume());
}

TEST_P(EventLoopFdTest, NotifierWatchMayDestroyItself) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  std::unique_ptr<NotifierWatch> watch;
  watch = std::make_unique<NotifierWatch>(loop(), *notifier, Priority::kDevice,
                                          [&watch] { watch.reset(); });
  notifier->notify();
  EXPECT_TRUE(loop().run_once(EventLoop::Wait::kUntilEvent));
  EXPECT_EQ(watch, nullptr);
}

TEST_P(EventLoopFdTest, NotifierOfAnotherThreadEndsTheSleep) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  int shared = 0;  // Ordered by the notification alone.
  NotifierWatch watch(loop(), *notifier, Priority::kSubmission, [&] {
    EXPECT_EQ(shared, 42);
    loop().stop();
  });
  Thread other = start_thread([&] {
    shared = 42;
    notifier->notify();
  });
  loop().run();
}

TEST_P(EventLoopFdTest, LoopMadeHereMayBeTurnedThere) {
  Pipe pipe;
  int calls = 0;
  auto watcher =
      std::make_unique<FdWatcher>(loop(), pipe.read_end.get(), Priority::kDevice, [&](uint32_t) {
        pipe.read_byte();
        ++calls;
        loop().stop();
      });
  watcher->watch(POLLIN);
  pipe.write_byte();
  start_thread([&] {
    loop().run();
    watcher.reset();
    real_loop_.reset();  // Only its own thread may destroy it.
  }).join();
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace skiff::loop
