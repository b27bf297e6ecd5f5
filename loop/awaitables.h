// SPDX-License-Identifier: GPL-2.0-or-later
// What a Task can wait for on an event loop: time, a turn of another loop, a callback's value.
//
// Thread: awaited on the loop's thread, but resume_on(); resumed on the loop's thread always.
// Ownership: borrows the loop. A task must not be destroyed while it waits for one of these.
#pragma once

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <optional>
#include <utility>

#include "loop/check.h"
#include "loop/event_loop.h"

namespace skiff::loop {

// co_await sleep_for(loop, delay_ns): resumes after at least so long, on the loop's clock.
class SleepAwaiter {
 public:
  SleepAwaiter(EventLoop& loop, int64_t delay_ns)
      : delay_ns_(delay_ns), timer_(loop, Priority::kDevice, [this] { waiter_.resume(); }) {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    timer_.arm_after(delay_ns_);
  }
  void await_resume() const noexcept {}

 private:
  int64_t delay_ns_;
  std::coroutine_handle<> waiter_;
  Timer timer_;
};

inline SleepAwaiter sleep_for(EventLoop& loop, int64_t delay_ns) { return {loop, delay_ns}; }

// co_await resume_on(loop): goes on in a later turn of that loop, on its thread; for the loop that
// it is on already, lets the others of the present turn go first. From any thread.
class ResumeOnAwaiter {
 public:
  explicit ResumeOnAwaiter(EventLoop& loop) : loop_(loop) {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    message_.waiter = waiter;
    message_.run = [](Message& message) { static_cast<Resume&>(message).waiter.resume(); };
    loop_.post(message_);  // The other thread may resume us before this returns.
  }
  void await_resume() const noexcept {}

 private:
  struct Resume : Message {
    std::coroutine_handle<> waiter;
  };
  EventLoop& loop_;
  Resume message_;
};

inline ResumeOnAwaiter resume_on(EventLoop& loop) { return ResumeOnAwaiter(loop); }

// A value that a callback delivers once and a task awaits once, in either order. The task goes on
// in a later turn of the loop, never inside set(): the caller may be half-way through an update.
// Thread: set() from any, the rest on the loop's. Ownership: the task's side owns it, and keeps it
// until both have happened.
//
//   OneShot<int> answer(loop);
//   ask([&answer](int value) { answer.set(value); });
//   int value = co_await answer;
template <typename T>
class OneShot {
 public:
  explicit OneShot(EventLoop& loop) : loop_(loop) {
    message_.owner = this;
    message_.run = [](Message& message) { static_cast<Resume&>(message).owner->waiter_.resume(); };
  }
  OneShot(const OneShot&) = delete;
  OneShot& operator=(const OneShot&) = delete;

  void set(T value) {
    SKIFF_CHECK(!value_.has_value());
    value_.emplace(std::move(value));
    EventLoop& loop = loop_;  // With nobody waiting yet, `this` may go once the state has changed.
    const State before = state_.exchange(State::kSet, std::memory_order_acq_rel);
    if (before == State::kAwaited) loop.post(message_);
  }

  bool is_set() const { return state_.load(std::memory_order_acquire) == State::kSet; }

  bool await_ready() const noexcept { return is_set(); }
  bool await_suspend(std::coroutine_handle<> waiter) noexcept {
    waiter_ = waiter;
    State expected = State::kEmpty;
    return state_.compare_exchange_strong(expected, State::kAwaited, std::memory_order_acq_rel);
  }
  T await_resume() {
    SKIFF_CHECK(value_.has_value());
    T value = *std::move(value_);
    value_.reset();
    return value;
  }

 private:
  enum class State : uint8_t { kEmpty, kAwaited, kSet };
  struct Resume : Message {
    OneShot* owner = nullptr;
  };

  EventLoop& loop_;
  std::atomic<State> state_{State::kEmpty};
  std::optional<T> value_;
  std::coroutine_handle<> waiter_;
  Resume message_;
};

}  // namespace skiff::loop
