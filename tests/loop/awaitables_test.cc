// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/awaitables.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "loop/testing/manual_loop.h"

namespace skiff::loop {
namespace {

Task<void> sleep_twice(EventLoop& loop, std::vector<int64_t>* woke_at) {
  co_await sleep_for(loop, 100);
  woke_at->push_back(loop.now_ns());
  co_await sleep_for(loop, 50);
  woke_at->push_back(loop.now_ns());
}

TEST(SleepForTest, ResumesWhenTheTimeHasCome) {
  ManualLoop loop;
  TaskScope scope(loop);
  const int64_t start = loop.loop().now_ns();
  std::vector<int64_t> woke_at;
  scope.spawn(sleep_twice(loop, &woke_at));
  loop.advance_ns(99);
  EXPECT_TRUE(woke_at.empty());
  loop.advance_ns(1);
  loop.advance_ns(50);
  EXPECT_EQ(woke_at, (std::vector<int64_t>{start + 100, start + 150}));
}

Task<void> there_and_back(EventLoop& here, EventLoop& there, std::vector<bool>* at_home) {
  at_home->push_back(here.is_current());
  co_await resume_on(there);
  at_home->push_back(there.is_current() && !here.is_current());
  co_await resume_on(here);
  at_home->push_back(here.is_current());
  here.stop();
}

TEST(ResumeOnTest, TaskHopsToAnotherThreadAndBack) {
  Result<std::unique_ptr<IoThread>> io = IoThread::create({.name = "there"});
  ASSERT_TRUE(io);
  Result<std::unique_ptr<EventLoop>> here = EventLoop::create();
  ASSERT_TRUE(here);
  (*here)->run_once(EventLoop::Wait::kNo);
  TaskScope scope(**here);
  std::vector<bool> at_home;
  for (int i = 0; i < 100; ++i) {
    at_home.clear();
    scope.spawn(there_and_back(**here, (*io)->loop(), &at_home));
    (*here)->run();
    ASSERT_EQ(at_home, std::vector<bool>(3, true));
  }
}

Task<void> await_value(OneShot<std::unique_ptr<int>>& shot, int* result) {
  const std::unique_ptr<int> value = co_await shot;
  *result = *value;
}

TEST(OneShotTest, ValueSetFirstIsThereWithoutWaiting) {
  ManualLoop loop;
  TaskScope scope(loop);
  OneShot<std::unique_ptr<int>> shot(loop);
  int result = 0;
  shot.set(std::make_unique<int>(7));
  EXPECT_TRUE(shot.is_set());
  scope.spawn(await_value(shot, &result));
  EXPECT_EQ(result, 7);
}

TEST(OneShotTest, WaiterGoesOnInALaterTurnNotInsideSet) {
  ManualLoop loop;
  TaskScope scope(loop);
  OneShot<std::unique_ptr<int>> shot(loop);
  int result = 0;
  scope.spawn(await_value(shot, &result));
  shot.set(std::make_unique<int>(7));
  EXPECT_EQ(result, 0);
  loop.run_until_idle();
  EXPECT_EQ(result, 7);
}

Task<void> ask_elsewhere(EventLoop& here, EventLoop& there, int rounds, int* sum) {
  for (int i = 0; i < rounds; ++i) {
    OneShot<int> reply(here);
    there.post([&reply, i] { reply.set(i); });
    *sum += co_await reply;
  }
  here.stop();
}

TEST(OneShotTest, ValueFromAnotherThreadResumesOnTheLoopsOwn) {
  Result<std::unique_ptr<IoThread>> io = IoThread::create({.name = "there"});
  ASSERT_TRUE(io);
  Result<std::unique_ptr<EventLoop>> here = EventLoop::create();
  ASSERT_TRUE(here);
  (*here)->run_once(EventLoop::Wait::kNo);
  TaskScope scope(**here);
  int sum = 0;
  scope.spawn(ask_elsewhere(**here, (*io)->loop(), 200, &sum));
  (*here)->run();
  EXPECT_EQ(sum, 199 * 200 / 2);
}

}  // namespace
}  // namespace skiff::loop
