// SPDX-License-Identifier: GPL-2.0-or-later
// TaskScope: tasks that run side by side, and a place where they all end.
//
// Nothing is detached: whoever spawns into a scope closes it before it goes.
// Thread: the loop's. Ownership: owns the spawned tasks until they end.
//
//   TaskScope scope(loop);
//   scope.spawn(serve(connection));
//   ...
//   co_await scope.close();
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdlib>

#include "loop/home.h"
#include "loop/task.h"

namespace skiff::loop {

class TaskScope {
 public:
  explicit TaskScope(EventLoop& loop) : home_(loop) {}
  ~TaskScope() { SKIFF_CHECK(running_ == 0); }  // co_await close() first.
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  // Runs the task at once, up to where it first waits.
  void spawn(Task<void> task) {
    home_.assert_here();
    SKIFF_CHECK(!closed_);
    ++running_;
    run(*this, std::move(task));
  }

  size_t running() const { return running_; }

  // Nothing can be spawned any more; ends when all that was spawned has. Awaited once.
  Task<void> close() {
    home_.assert_here();
    closed_ = true;
    co_await AllEnded{*this};
  }

 private:
  // The frame around one spawned task. It frees itself before it tells the scope, so that the scope
  // may go at once.
  struct Root {
    struct promise_type {
      explicit promise_type(TaskScope& its_scope, Task<void>&) : scope(its_scope) {}
      Root get_return_object() const noexcept { return {}; }
      std::suspend_never initial_suspend() const noexcept { return {}; }
      auto final_suspend() const noexcept {
        struct Leave {
          bool await_ready() const noexcept { return false; }
          std::coroutine_handle<> await_suspend(
              std::coroutine_handle<promise_type> frame) const noexcept {
            TaskScope& left = frame.promise().scope;
            frame.destroy();
            return left.on_end();
          }
          void await_resume() const noexcept {}
        };
        return Leave{};
      }
      void return_void() const noexcept {}
      void unhandled_exception() const noexcept { std::abort(); }

      TaskScope& scope;
    };
  };

  struct AllEnded {
    TaskScope& scope;
    bool await_ready() const noexcept { return scope.running_ == 0; }
    void await_suspend(std::coroutine_handle<> waiter) const noexcept {
      SKIFF_CHECK(!scope.closer_);
      scope.closer_ = waiter;
    }
    void await_resume() const noexcept {}
  };

  static Root run(TaskScope&, Task<void> task) { co_await std::move(task); }

  std::coroutine_handle<> on_end() noexcept {
    --running_;
    if (running_ > 0 || !closer_) return std::noop_coroutine();
    return std::exchange(closer_, nullptr);
  }

  Home home_;
  size_t running_ = 0;
  bool closed_ = false;
  std::coroutine_handle<> closer_;
};

}  // namespace skiff::loop
