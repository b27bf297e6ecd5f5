// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/event_loop_state.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/message_list.h"

namespace skiff::loop {
namespace {

constexpr size_t kCallbacksPerTurn = 64;
constexpr int64_t kTimePerTurnNs = 50'000;
constexpr size_t kDeadlineCheckEvery = 16;
// Services do long things (encode a tile, copy a block): they are looked at after each.
constexpr int64_t kServiceQuantumNs = 200'000;
constexpr int64_t kServiceStarvedNs = 5'000'000;

uintptr_t this_thread() { return static_cast<uintptr_t>(pthread_self()); }

}  // namespace

CallbackNode::CallbackNode(LoopState& state) : loop(state) {
  loop.assert_usable();
  ++loop.users;
}

CallbackNode::~CallbackNode() { --loop.users; }

TimerNode::TimerNode(LoopState& state, Priority of, std::function<void()> to_call)
    : CallbackNode(state), callback(std::move(to_call)) {
  priority = of;
  run = [](Message& message) {
    auto& self = static_cast<TimerNode&>(message);
    self.guarded(self.callback);
  };
  heap().add_room();
}

TimerNode::~TimerNode() { heap().remove_room(); }

TimerHeap& TimerNode::heap() {
  return priority == Priority::kRealTime ? loop.real_time_timers : loop.timers;
}

void TimerNode::stop() {
  heap().cancel(*this);
  if (MessageList::is_linked(*this)) MessageList::unlink(*this);
}

LoopState::LoopState(const EventLoop::Options& options)
    : clock(options.clock != nullptr ? options.clock : &monotonic_clock),
      task_work(options.task_work),
      kick(options.kick) {}

bool LoopState::is_home() const { return home.load(std::memory_order_relaxed) == this_thread(); }

void LoopState::assert_usable() const {
  const uintptr_t bound = home.load(std::memory_order_relaxed);
  SKIFF_CHECK(bound == 0 || bound == this_thread());
}

void LoopState::bind_here() {
  uintptr_t nobody = 0;
  if (home.compare_exchange_strong(nobody, this_thread(), std::memory_order_relaxed))
    backend->bind();
  else
    SKIFF_CHECK(nobody == this_thread());
}

void LoopState::send(Message& message) {
  if (mailbox.send(message)) wake_sleeper();
}

void LoopState::wake_if_asleep() {
  if (mailbox.wake()) wake_sleeper();
}

void LoopState::wake_sleeper() {
  backend->wake();
  if (kick) kick();
  // Last: from here on the loop may go, see await_wakers().
  wakes.fetch_add(1, std::memory_order_release);
}

void LoopState::await_wakers() {
  mailbox.set_awake();
  while (wakes.load(std::memory_order_acquire) != mailbox.claimed_wakes()) sched_yield();
}

void LoopState::collect_mail() {
  Message* message = mailbox.take_all();
  while (message != nullptr) arrived(*std::exchange(message, message->next));
}

bool LoopState::anything_waiting() const {
  const auto filled = [](const MessageList& list) { return !list.empty(); };
  return !completions.empty() || std::any_of(ready.begin(), ready.end(), filled) ||
         std::any_of(next.begin(), next.end(), filled);
}

int64_t LoopState::earliest_deadline_ns() const {
  return std::min(real_time_timers.earliest_ns(), timers.earliest_ns());
}

int64_t LoopState::delay_to_ns(int64_t deadline_ns) const {
  if (deadline_ns == TimerHeap::kNever) return LoopBackend::kForever;
  return std::max<int64_t>(0, deadline_ns - clock->now_ns());
}

void LoopState::wait_for_events(EventLoop::Wait wait) {
  mailbox.set_awake();  // Between its turns an interruptible loop counts as asleep.
  int64_t timeout_ns = 0;
  if (wait == EventLoop::Wait::kUntilEvent && !anything_waiting()) {
    timeout_ns = delay_to_ns(earliest_deadline_ns());
    // From try_sleep() on a sender wakes us. stop() sets its flag before it looks whether we sleep,
    // and we look at the flag after we have said so: one of the two sees the other.
    if (timeout_ns != 0 && (!mailbox.try_sleep() || stop_requested.load())) timeout_ns = 0;
    if (timeout_ns != 0) add_one(sleeps);
  }
  backend->poll(timeout_ns);
  mailbox.set_awake();
}

void LoopState::take_what_came() {
  collect_mail();
  for (size_t i = 0; i < kPriorityCount; ++i) ready[i].append(next[i]);
}

bool LoopState::run_due() {
  expire_timers(clock->now_ns());
  constexpr Budget kBudget{kCallbacksPerTurn, kTimePerTurnNs, kDeadlineCheckEvery};
  size_t ran = run_real_time();
  ran += run_class(Priority::kCompletion, kBudget);
  ran += run_class(Priority::kSubmission, kBudget);
  ran += run_class(Priority::kDevice, kBudget);
  ran += run_service(ran);
  return ran != 0;
}

void LoopState::expire_timers(int64_t now_ns) {
  expire_real_time(now_ns);
  while (timers.earliest_ns() <= now_ns) {
    auto& timer = static_cast<TimerNode&>(timers.pop());
    ++arrivals;
    ready_of(timer.priority).push_back(timer);
  }
}

void LoopState::expire_real_time(int64_t now_ns) {
  while (real_time_timers.earliest_ns() <= now_ns) {
    const int64_t lateness_ns = now_ns - real_time_timers.earliest_ns();
    if (lateness_ns > worst_real_time_lateness_ns.load(std::memory_order_relaxed))
      worst_real_time_lateness_ns.store(lateness_ns, std::memory_order_relaxed);
    ++arrivals;
    ready_of(Priority::kRealTime).push_back(static_cast<TimerNode&>(real_time_timers.pop()));
  }
}

size_t LoopState::run_real_time() {
  size_t ran = 0;
  while (run_one(Priority::kRealTime)) ++ran;
  return ran;
}

size_t LoopState::run_class(Priority priority, const Budget& budget) {
  const bool anything =
      !ready_of(priority).empty() || (priority == Priority::kCompletion && !completions.empty());
  if (!anything) return 0;  // Spares the clock.
  const int64_t start_ns = clock->now_ns();
  size_t ran = 0;
  while (ran < budget.callbacks && run_one(priority)) {
    if (++ran % budget.check_every != 0) continue;
    const int64_t now_ns = clock->now_ns();
    if (real_time_timers.earliest_ns() <= now_ns) {
      expire_real_time(now_ns);
      run_real_time();
    }
    if (now_ns - start_ns >= budget.time_ns) break;
  }
  return ran;
}

size_t LoopState::run_service(size_t others_ran) {
  if (ready_of(Priority::kService).empty()) {
    service_since_ns = 0;
    return 0;
  }
  const int64_t now_ns = clock->now_ns();
  if (service_since_ns == 0) service_since_ns = now_ns;
  if (others_ran != 0 && now_ns - service_since_ns < kServiceStarvedNs) return 0;
  const size_t ran = run_class(Priority::kService, {kCallbacksPerTurn, kServiceQuantumNs, 1});
  service_since_ns = 0;  // If there is more, the next turn starts to count anew.
  return ran;
}

bool LoopState::run_one(Priority priority) {
  // Ring operations and messages of the class take turns: neither waits for all of the other.
  MessageList& messages = ready_of(priority);
  if (priority == Priority::kCompletion && !completions.empty() &&
      (completions_first || messages.empty())) {
    completions_first = false;
    const CompletionQueue::Entry ended = completions.pop();
    ended.operation->done(*ended.operation, ended.result, ended.cqe_flags);
    return true;
  }
  completions_first = true;
  Message* message = messages.pop_front();
  if (message == nullptr) return false;
  message->run(*message);
  return true;
}

void LoopState::end_turn() {
  if (task_work != EventLoop::TaskWork::kInterrupt) return;
  backend->end_turn(delay_to_ns(earliest_deadline_ns()));
  // Between its turns the thread is in KVM_RUN: that is sleep, and whatever has come in just now
  // must end it as well.
  if (mailbox.try_sleep()) return;
  backend->wake();
  if (kick) kick();
}

}  // namespace skiff::loop
