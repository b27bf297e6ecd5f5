// SPDX-License-Identifier: GPL-2.0-or-later
// Task<T>: a coroutine that runs when it is awaited and delivers one T.
//
// Thread: runs and resumes on the thread that awaits it, an EventLoop's.
// Ownership: owns its frame; destroying a task that is suspended half-way destroys what it awaits,
// so the awaited operation must allow that: see TaskScope for tasks that must end first.
// Frames come from plain new: raw disks use no coroutine, and glibc's per-thread cache serves the
// few sizes that metadata paths allocate over and over.
//
//   Task<Result<int>> answer(EventLoop& loop) {
//     co_await sleep_for(loop, 1'000'000);
//     co_return 42;
//   }
#pragma once

#include <coroutine>
#include <cstdlib>
#include <optional>
#include <utility>

#include "loop/check.h"

namespace skiff::loop {

template <typename T = void>
class Task;

namespace task_detail {

// Hands over to whoever awaited, without growing the stack.
struct FinalAwaiter {
  bool await_ready() const noexcept { return false; }
  template <typename Promise>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept {
    return ended.promise().continuation;
  }
  void await_resume() const noexcept {}
};

struct PromiseBase {
  std::suspend_always initial_suspend() const noexcept { return {}; }
  FinalAwaiter final_suspend() const noexcept { return {}; }
  void unhandled_exception() const noexcept { std::abort(); }  // There are none in this tree.

  std::coroutine_handle<> continuation = std::noop_coroutine();
};

template <typename T>
struct Promise : PromiseBase {
  Task<T> get_return_object() noexcept;
  void return_value(T value) { result.emplace(std::move(value)); }
  T take() {
    SKIFF_CHECK(result.has_value());
    return *std::move(result);
  }

  std::optional<T> result;
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void take() const noexcept {}
};

}  // namespace task_detail

template <typename T>
class [[nodiscard]] Task {
 public:
  using promise_type = task_detail::Promise<T>;
  using value_type = T;

  Task(Task&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      if (frame_) frame_.destroy();
      frame_ = std::exchange(other.frame_, nullptr);
    }
    return *this;
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() {
    if (frame_) frame_.destroy();
  }

  // Awaited once; starts the coroutine at once on this thread.
  auto operator co_await() && noexcept {
    struct Awaiter {
      std::coroutine_handle<promise_type> frame;
      bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiter) const noexcept {
        frame.promise().continuation = waiter;
        return frame;
      }
      T await_resume() const { return frame.promise().take(); }
    };
    SKIFF_CHECK(frame_ && !frame_.done());
    return Awaiter{frame_};
  }

 private:
  friend promise_type;
  explicit Task(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}

  std::coroutine_handle<promise_type> frame_;
};

namespace task_detail {

template <typename T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise>::from_promise(*this));
}

inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

}  // namespace task_detail

}  // namespace skiff::loop
