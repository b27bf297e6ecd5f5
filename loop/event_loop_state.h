// SPDX-License-Identifier: GPL-2.0-or-later
// LoopState: the private parts of an EventLoop, which its timers, watchers and backends share.
//
// Thread: the loop's, but for mailbox, stop_requested and wakes. Ownership: owned by the EventLoop.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "loop/adaptive_polling.h"
#include "loop/clock.h"
#include "loop/completion_queue.h"
#include "loop/event_loop.h"
#include "loop/loop_backend.h"
#include "loop/mailbox.h"
#include "loop/message_list.h"
#include "loop/timer_heap.h"

namespace skiff::loop {

// What a user's callback hangs on. When its owner is destroyed inside that callback, the node stays
// until the callback has returned, as the function that runs is part of it.
struct CallbackNode {
  explicit CallbackNode(LoopState& state);
  virtual ~CallbackNode();
  CallbackNode(const CallbackNode&) = delete;
  CallbackNode& operator=(const CallbackNode&) = delete;

  // False if the owner went meanwhile: then `this` is gone too.
  template <typename Call>
  bool guarded(const Call& call) {
    running = true;
    call();
    running = false;
    if (!orphaned) return true;
    delete this;
    return false;
  }

  LoopState& loop;
  bool running = false;
  bool orphaned = false;
};

// Ends a node's life: now, or when its callback returns.
template <typename Node>
void retire(std::unique_ptr<Node> node) {
  if (!node->running) return;
  node->orphaned = true;
  [[maybe_unused]] auto* deleted_by_guarded = node.release();
}

// A timer as the heap and the queues know it.
struct TimerNode : CallbackNode, Message, TimerEntry {
  TimerNode(LoopState& state, Priority of, std::function<void()> to_call);
  ~TimerNode() override;
  TimerHeap& heap();
  void stop();  // Neither armed nor waiting to run.

  std::function<void()> callback;
};

struct LoopState {
  explicit LoopState(const EventLoop::Options& options);

  // Strictly: the thread that has turned the loop, not just any before the first turn.
  bool is_home() const;
  void assert_usable() const;  // By the home thread, or by any while there is none.
  void bind_here();            // Makes the caller's thread the home, or checks that it is.

  // Home thread: to be run in the next turn.
  void enqueue(Message& message) { next[static_cast<size_t>(message.priority)].push_back(message); }
  // The same, of news from outside.
  void arrived(Message& message) {
    ++arrivals;
    enqueue(message);
  }
  void send(Message& message);  // Any thread.
  void wake_if_asleep();        // Any thread.
  void collect_mail();
  // Returns when nobody is about to wake this loop any more. A sender may be preempted between its
  // message and the wake, and the message may be what the loop's owner waited for to destroy it.
  void await_wakers();

  // The steps of EventLoop::run_once().
  void wait_for_events(EventLoop::Wait wait);
  void take_what_came();
  bool run_due();
  void end_turn();

  int64_t earliest_deadline_ns() const;  // TimerHeap::kNever: no timer is armed.
  bool is_idle() const;                  // See EventLoop::is_idle().

  const Clock* clock;
  MonotonicClock monotonic_clock;
  const EventLoop::TaskWork task_work;
  const std::function<void()> kick;
  const std::function<void(int64_t)> kick_at;
  std::unique_ptr<LoopBackend> backend;

  Mailbox mailbox;
  std::atomic<bool> stop_requested{false};
  std::atomic<uintptr_t> home{0};  // pthread_self(); 0: not bound yet.
  // In KVM_RUN or on the way there, not in a wait: a kick ends it, and nothing else is needed.
  std::atomic<bool> between_turns{false};
  bool in_turn = false;
  size_t users = 0;  // Timers, watchers and so on: none may be left when the loop goes.

  std::array<MessageList, kPriorityCount> ready;  // To be run in this turn.
  std::array<MessageList, kPriorityCount> next;   // Came up during it.
  CompletionQueue completions;                    // In class kCompletion, beside its messages.
  bool completions_first = false;
  TimerHeap real_time_timers;
  TimerHeap timers;
  int64_t service_since_ns = 0;  // Since when class kService has been waiting; 0: it has not.
  uint64_t arrivals = 0;         // See EventLoop::arrivals().
  AdaptivePolling polling;
  // With kInterrupt: what will end KVM_RUN has been told of timers up to here.
  int64_t told_deadline_ns = 0;
  int64_t kick_at_ns = 0;  // The last kick_at(), of the monotonic clock.

  // Atomic to be read from elsewhere; written by the home thread, but for wakes.
  std::atomic<uint64_t> turns{0};
  std::atomic<uint64_t> sleeps{0};
  std::atomic<uint64_t> wakes{0};
  std::atomic<uint64_t> enters{0};
  std::atomic<uint64_t> operations{0};
  std::atomic<uint64_t> poll_hits{0};
  std::atomic<uint64_t> poll_misses{0};
  std::atomic<uint64_t> poll_spun_ns{0};
  std::atomic<int64_t> worst_real_time_lateness_ns{0};

 private:
  void wake_sleeper();
  void sleep();
  bool spin(int64_t since_ns, int64_t window_ns);
  void set_kick(int64_t deadline_ns);

  struct Budget {
    size_t callbacks;
    int64_t time_ns;
    size_t check_every;
  };

  MessageList& ready_of(Priority priority) { return ready[static_cast<size_t>(priority)]; }
  bool anything_waiting() const;
  int64_t delay_to_ns(int64_t deadline_ns) const;
  void expire_timers(int64_t now_ns);
  void expire_real_time(int64_t now_ns);
  size_t run_real_time();
  size_t run_class(Priority priority, const Budget& budget);
  size_t run_service(size_t others_ran);
  bool run_one(Priority priority);
};

// For counters that one thread writes and others read.
template <typename T>
void add_to(std::atomic<T>& counter, T more) {
  counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
}
template <typename T>
void add_one(std::atomic<T>& counter) {
  add_to(counter, T{1});
}

}  // namespace skiff::loop
