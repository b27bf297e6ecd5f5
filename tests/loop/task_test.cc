// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/task.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "loop/awaitables.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task_scope.h"
#include "loop/testing/manual_loop.h"

namespace skiff::loop {
namespace {

Task<int> answer(int* started) {
  ++*started;
  co_return 42;
}

Task<void> store(Task<int> task, int* result) { *result = co_await std::move(task); }

TEST(TaskTest, IsLazyAndDeliversItsValue) {
  ManualLoop loop;
  TaskScope scope(loop);
  int started = 0;
  int result = 0;
  Task<int> task = answer(&started);
  EXPECT_EQ(started, 0);
  scope.spawn(store(std::move(task), &result));
  EXPECT_EQ(started, 1);
  EXPECT_EQ(result, 42);
  EXPECT_EQ(scope.running(), 0U);
}

TEST(TaskTest, UnawaitedTaskIsFreedAndNeverRuns) {
  int started = 0;
  {
    const Task<int> never = answer(&started);
  }
  EXPECT_EQ(started, 0);
}

Task<std::unique_ptr<int>> move_only() { co_return std::make_unique<int>(5); }
Task<Result<std::string>> fails() { co_return Error(ErrorKind::kNotFound, "Nothing there"); }

Task<void> collect(int* value, std::string* message) {
  const std::unique_ptr<int> moved = co_await move_only();
  *value = *moved;
  Result<std::string> failed = co_await fails();
  *message = failed ? "no error" : failed.error().message();
}

TEST(TaskTest, CarriesMoveOnlyValuesAndErrors) {
  ManualLoop loop;
  TaskScope scope(loop);
  int value = 0;
  std::string message;
  scope.spawn(collect(&value, &message));
  EXPECT_EQ(value, 5);
  EXPECT_EQ(message, "Nothing there");
}

Task<int> count_down(int n) {
  if (n == 0) co_return 0;
  const int rest = co_await count_down(n - 1);
  co_return rest + 1;
}

Task<void> loop_many(int rounds, int* sum) {
  for (int i = 0; i < rounds; ++i) *sum += co_await count_down(1);
}

TEST(TaskTest, LongLoopsOfTasksThatNeverSuspendNeedNoStack) {
  ManualLoop loop;
  TaskScope scope(loop);
  int sum = 0;
#if defined(__OPTIMIZE__) || defined(__clang__)
  constexpr int kRounds = 200'000;
#else
  constexpr int kRounds = 1'000;  // g++ without optimisation makes no tail calls.
#endif
  scope.spawn(loop_many(kRounds, &sum));
  EXPECT_EQ(sum, kRounds);
}

Task<void> sleeper(EventLoop& loop, int64_t delay_ns, int* ended) {
  co_await sleep_for(loop, delay_ns);
  ++*ended;
}

Task<void> close_and_free(std::unique_ptr<TaskScope> scope, bool* closed) {
  co_await scope->close();
  scope.reset();  // At once: nothing of it may be touched afterwards.
  *closed = true;
}

TEST(TaskScopeTest, CloseEndsWhenAllTasksHaveAndTheScopeMayGoThen) {
  ManualLoop loop;
  TaskScope outer(loop);
  auto scope = std::make_unique<TaskScope>(loop);
  int ended = 0;
  bool closed = false;
  for (const int64_t delay_ns : {10, 30, 20}) scope->spawn(sleeper(loop, delay_ns, &ended));
  EXPECT_EQ(scope->running(), 3U);
  outer.spawn(close_and_free(std::move(scope), &closed));
  loop.advance_ns(20);
  EXPECT_EQ(ended, 2);
  EXPECT_FALSE(closed);
  loop.advance_ns(10);
  EXPECT_EQ(ended, 3);
  EXPECT_TRUE(closed);
  EXPECT_EQ(outer.running(), 0U);
}

TEST(TaskScopeTest, ClosingAnEmptyScopeEndsAtOnce) {
  ManualLoop loop;
  TaskScope outer(loop);
  bool closed = false;
  outer.spawn(close_and_free(std::make_unique<TaskScope>(loop), &closed));
  EXPECT_TRUE(closed);
}

TEST(TaskScopeDeathTest, ScopeThatGoesWithTasksInItAborts) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        ManualLoop loop;
        int ended = 0;
        TaskScope scope(loop);
        scope.spawn(sleeper(loop, 10, &ended));
      },
      "internal error: running_ == 0");
}

}  // namespace
}  // namespace skiff::loop
