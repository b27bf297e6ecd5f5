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

// How long a completion may go unseen that came just before KVM_RUN; docs/decisions/0012.
constexpr int64_t kOperationGuardNs = 1'000'000;
// Descriptors are watched for ever, and an idle guest should not be disturbed for that.
constexpr int64_t kWatchGuardNs = 50'000'000;

constexpr int64_t kFarNs = 3'600'000'000'000;

void relax_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

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
      kick(options.kick),
      kick_at(options.kick_at) {
  polling.set_max_ns(options.poll_max_ns);
}

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
  // If the flag is not that of the sleep which we end, the loop has left that sleep by itself
  // since: then either will do.
  if (kick && between_turns.load(std::memory_order_relaxed))
    kick();
  else
    backend->wake();
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
  between_turns.store(false, std::memory_order_relaxed);
  if (wait == EventLoop::Wait::kNo || anything_waiting()) return backend->poll(0);
  if (!polling.enabled()) return sleep();

  polling.forget_what_came();
  const int64_t since_ns = clock->now_ns();
  const int64_t window_ns = polling.window_ns(since_ns);
  int64_t spun_ns = 0;
  bool came = false;
  if (window_ns > 0) {
    came = spin(since_ns, window_ns);
    spun_ns = clock->now_ns() - since_ns;
  }
  // Who did it is seen before the mail is taken and the pollers' work is done.
  const auto look = [this] {
    polling.mail().came |= mailbox.has_mail();
    polling.note_ready();
  };
  if (came) look();
  came ? backend->poll(0) : sleep();
  if (!came) look();
  const int64_t lasted_ns = came ? spun_ns : clock->now_ns() - since_ns;
  polling.learn({.lasted_ns = lasted_ns, .spun_ns = spun_ns, .now_ns = since_ns + lasted_ns});
}

void LoopState::sleep() {
  int64_t timeout_ns = anything_waiting() ? 0 : delay_to_ns(earliest_deadline_ns());
  // From try_sleep() on a sender wakes us. stop() sets its flag before it looks whether we sleep,
  // and we look at the flag after we have said so: one of the two sees the other.
  if (timeout_ns != 0 && (!mailbox.try_sleep() || stop_requested.load())) timeout_ns = 0;
  if (timeout_ns != 0) add_one(sleeps);
  backend->poll(timeout_ns);
  mailbox.set_awake();
}

// Looks instead of sleeping. True if something has come: then the loop must not sleep.
bool LoopState::spin(int64_t since_ns, int64_t window_ns) {
  backend->poll(0);  // Hands over what the last turn has put on the ring.
  const int64_t deadline_ns = earliest_deadline_ns();
  if (anything_waiting() || mailbox.has_mail() || deadline_ns <= since_ns) return true;
  const int64_t until_ns = std::min(since_ns + window_ns, deadline_ns);
  polling.begin();
  bool came = false;
  int64_t now_ns = 0;
  do {
    relax_cpu();
    // The mailbox says "awake" all the time: who sends pays no wake.
    came = mailbox.has_mail() || stop_requested.load(std::memory_order_relaxed) ||
           backend->has_news() || polling.any_ready();
    now_ns = clock->now_ns();
  } while (!came && now_ns < until_ns);
  // Whoever polled has its notifications back, or says that there is work after all.
  came |= polling.end();
  add_to(poll_spun_ns, static_cast<uint64_t>(now_ns - since_ns));
  if (came)
    add_one(poll_hits);
  else if (now_ns < deadline_ns)
    add_one(poll_misses);
  return came || anything_waiting();
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

bool LoopState::is_idle() const {
  // What expires of the timers it knows of, the kernel or kick_at() tells.
  return mailbox.is_asleep() && backend->ring() != nullptr && !backend->has_news() &&
         !backend->has_unsubmitted() && earliest_deadline_ns() >= told_deadline_ns &&
         !anything_waiting();
}

// What is due at a time is due by kick_at(), which costs a system call: one that is pending and
// comes earlier will do, as the turn it causes ends here again.
void LoopState::set_kick(int64_t deadline_ns) {
  const int64_t guard_ns = backend->has_operations() ? kOperationGuardNs
                           : backend->has_watches()  ? kWatchGuardNs
                                                     : TimerHeap::kNever;
  if (guard_ns == TimerHeap::kNever && deadline_ns == TimerHeap::kNever) return;
  const int64_t now_ns = monotonic_clock.now_ns();
  int64_t at_ns = now_ns + std::min(guard_ns, kFarNs);
  if (clock != &monotonic_clock && deadline_ns != TimerHeap::kNever)
    deadline_ns = now_ns + std::min(delay_to_ns(deadline_ns), kFarNs);
  at_ns = std::min(at_ns, deadline_ns);
  if (kick_at_ns > now_ns && kick_at_ns <= at_ns) return;
  kick_at_ns = at_ns;
  kick_at(at_ns);
}

void LoopState::end_turn() {
  if (task_work != EventLoop::TaskWork::kInterrupt) return;
  told_deadline_ns = earliest_deadline_ns();
  backend->end_turn(kick_at ? LoopBackend::kForever : delay_to_ns(told_deadline_ns));
  if (kick_at) set_kick(told_deadline_ns);
  // Between its turns the thread is in KVM_RUN: that is sleep, and whatever has come in just now
  // must end it as well.
  between_turns.store(true, std::memory_order_relaxed);
  if (mailbox.try_sleep()) return;
  kick ? kick() : backend->wake();
}

}  // namespace skiff::loop
