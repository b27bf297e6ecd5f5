// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/event_loop.h"

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "loop/check.h"
#include "loop/event_loop_state.h"
#include "loop/log.h"
#include "loop/loop_backend.h"
#include "loop/message_list.h"
#include "loop/result.h"
#include "loop/ring.h"
#include "loop/timer_heap.h"

namespace skiff::loop {
namespace {

struct PostedCallback : Message {
  explicit PostedCallback(std::function<void()> to_call) : callback(std::move(to_call)) {
    run = &PostedCallback::call;
  }
  static void call(Message& message) {
    const std::unique_ptr<PostedCallback> self(&static_cast<PostedCallback&>(message));
    self->callback();
  }
  std::function<void()> callback;
};

Result<std::unique_ptr<LoopBackend>> create_backend(LoopState& state,
                                                    const EventLoop::Options& options) {
  if (options.backend == EventLoop::Backend::kEpoll) return create_epoll_backend(state);
  Result<std::unique_ptr<LoopBackend>> uring = create_uring_backend(state, options.task_work);
  if (uring || options.backend == EventLoop::Backend::kIoUring) return uring;
  // Once in the process's life: every loop of it meets the same refusal.
  static std::atomic<bool> said{false};
  if (!said.exchange(true, std::memory_order_relaxed))
    SKIFF_LOG(kWarn, "Using epoll instead of io_uring, which is slower: {}",
              uring.error().message());
  return create_epoll_backend(state);
}

}  // namespace

EventLoop::EventLoop(std::unique_ptr<LoopState> state) : state_(std::move(state)) {}

Result<std::unique_ptr<EventLoop>> EventLoop::create(const Options& options) {
  auto state = std::make_unique<LoopState>(options);
  Result<std::unique_ptr<LoopBackend>> backend = create_backend(*state, options);
  if (!backend) return backend.error();
  state->backend = *std::move(backend);
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(state)));
}

EventLoop::~EventLoop() {
  state_->assert_usable();
  SKIFF_CHECK(!state_->in_turn);
  SKIFF_CHECK(state_->users == 0);  // A timer, watcher or bottom half would outlive its loop.
  SKIFF_CHECK(!state_->polling.has_pollers());
  state_->await_wakers();
  state_->take_what_came();
  for (MessageList& list : state_->ready) {
    while (Message* message = list.pop_front()) {
      if (message->run == &PostedCallback::call) delete static_cast<PostedCallback*>(message);
    }
  }
}

void EventLoop::run() {
  while (!state_->stop_requested.load()) run_once(Wait::kUntilEvent);
  state_->stop_requested.store(false);
}

bool EventLoop::run_once(Wait wait) {
  state_->bind_here();
  SKIFF_CHECK(!state_->in_turn);  // A loop is never run from inside itself.
  state_->in_turn = true;
  add_one(state_->turns);

  // The order of a turn:
  //
  // 1. Submit and wait, in one system call. What the last turn's callbacks (and whoever ran between
  //    the turns) have put on the ring goes to the kernel now, as late as possible and so in one
  //    batch, and as early as necessary: nothing is left behind when the thread sleeps. It sleeps
  //    only when nothing waits to be run, no message has come, and then until the next deadline.
  //    A loop that may poll looks first, for as long as that has paid: what comes while it looks
  //    needs no wake.
  state_->wait_for_events(wait);
  // 2. Take what has come: mail of other threads, and bottom halves that the last turn scheduled.
  //    Both after the wait, so that what ended the wait runs in this turn; and once, so that what
  //    is scheduled from here on waits for the next and no callback can keep a turn going.
  state_->take_what_came();
  // 3. Run what is due.
  //    a. Timers that have expired join the queues of their classes.
  //    b. kRealTime until there is no more: there is little of it, and it is what is late already.
  //    c. kCompletion before kSubmission: what has ended frees slots, and the guest waits for it.
  //    d. kSubmission, then kDevice. These three get 64 callbacks or 50 us each, so that a flood in
  //       one class delays the others by a bounded time; after every 16 callbacks the deadlines are
  //       looked at, and real-time timers that have come due run there and then.
  //    e. kService, up to 200 us, when the classes above had nothing to do in this turn, or when it
  //       has been kept waiting for 5 ms: the lowest, but not starved for ever.
  const bool ran = state_->run_due();
  // 4. A vCPU's loop hands everything to the kernel before the thread goes back to its guest.
  state_->end_turn();

  state_->in_turn = false;
  return ran;
}

void EventLoop::stop() {
  state_->stop_requested.store(true);
  state_->wake_if_asleep();
}

void EventLoop::post(std::function<void()> callback) {
  state_->send(*new PostedCallback(std::move(callback)));  // Deletes itself when it has run.
}

void EventLoop::post(Message& message) { state_->send(message); }

void EventLoop::add_poller(Poller& poller) {
  state_->assert_usable();
  state_->polling.add(poller);
}

void EventLoop::remove_poller(Poller& poller) {
  state_->assert_usable();
  state_->polling.remove(poller);
}

void EventLoop::set_poll_max_ns(int64_t max_ns) {
  state_->assert_usable();
  state_->polling.set_max_ns(max_ns);
}

bool EventLoop::is_current() const {
  return state_->home.load(std::memory_order_relaxed) == 0 || state_->is_home();
}

int64_t EventLoop::now_ns() const { return state_->clock->now_ns(); }

bool EventLoop::uses_io_uring() const { return state_->backend->ring() != nullptr; }

LoopCounters EventLoop::counters() const {
  const LoopState& state = *state_;
  return {.turns = state.turns.load(std::memory_order_relaxed),
          .sleeps = state.sleeps.load(std::memory_order_relaxed),
          .wakes = state.wakes.load(std::memory_order_relaxed),
          .enters = state.enters.load(std::memory_order_relaxed),
          .operations = state.operations.load(std::memory_order_relaxed),
          .poll_hits = state.poll_hits.load(std::memory_order_relaxed),
          .poll_misses = state.poll_misses.load(std::memory_order_relaxed),
          .poll_spun_ns = state.poll_spun_ns.load(std::memory_order_relaxed),
          .worst_real_time_lateness_ns =
              state.worst_real_time_lateness_ns.load(std::memory_order_relaxed)};
}

io_uring_sqe* EventLoop::next_sqe(RingOperation& operation) {
  state_->assert_usable();
  SKIFF_CHECK(uses_io_uring());
  return state_->backend->next_sqe(operation);
}

void EventLoop::submit_sqes() {
  state_->assert_usable();
  state_->backend->submit();
}

uint64_t EventLoop::arrivals() const { return state_->arrivals; }

int64_t EventLoop::next_deadline_ns() const { return state_->earliest_deadline_ns(); }

bool EventLoop::is_idle() const { return state_->is_idle(); }

bool EventLoop::ring_supports(uint8_t opcode) const {
  const Ring* ring = state_->backend->ring();
  return ring != nullptr && ring->supports(opcode);
}

std::optional<uint32_t> EventLoop::register_file(int fd) {
  state_->assert_usable();
  Ring* ring = state_->backend->ring();
  return ring != nullptr ? ring->register_file(fd) : std::nullopt;
}

void EventLoop::unregister_file(uint32_t index) {
  state_->assert_usable();
  state_->backend->ring()->unregister_file(index);
}

struct BottomHalf::Impl : CallbackNode, Message {
  Impl(LoopState& state, Priority of, std::function<void()> to_call)
      : CallbackNode(state), callback(std::move(to_call)) {
    priority = of;
    run = [](Message& message) {
      auto& self = static_cast<Impl&>(message);
      // Before the callback, which then sees all that was done before each call of schedule().
      self.scheduled.exchange(false, std::memory_order_acq_rel);
      self.guarded(self.callback);
    };
  }

  std::function<void()> callback;
  std::atomic<bool> scheduled{false};
};

BottomHalf::BottomHalf(EventLoop& loop, Priority priority, std::function<void()> callback)
    : impl_(std::make_unique<Impl>(loop.state(), priority, std::move(callback))) {}

BottomHalf::~BottomHalf() {
  cancel();
  retire(std::move(impl_));
}

void BottomHalf::schedule() {
  if (impl_->scheduled.exchange(true, std::memory_order_acq_rel)) return;
  if (impl_->loop.is_home())
    impl_->loop.enqueue(*impl_);
  else
    impl_->loop.send(*impl_);
}

void BottomHalf::cancel() {
  impl_->loop.assert_usable();
  impl_->loop.collect_mail();  // It may be there still.
  if (!MessageList::is_linked(*impl_)) return;
  MessageList::unlink(*impl_);
  impl_->scheduled.exchange(false, std::memory_order_acq_rel);
}

struct Timer::Impl : TimerNode {
  using TimerNode::TimerNode;
};

Timer::Timer(EventLoop& loop, Priority priority, std::function<void()> callback)
    : impl_(std::make_unique<Impl>(loop.state(), priority, std::move(callback))) {}

Timer::~Timer() {
  cancel();
  retire(std::move(impl_));
}

void Timer::arm_at(int64_t deadline_ns) {
  impl_->loop.assert_usable();
  impl_->stop();
  impl_->heap().arm(*impl_, deadline_ns);
}

void Timer::arm_after(int64_t delay_ns) { arm_at(impl_->loop.clock->now_ns() + delay_ns); }

void Timer::cancel() {
  impl_->loop.assert_usable();
  impl_->stop();
}

bool Timer::is_armed() const {
  return impl_->place != TimerEntry::kNotArmed || MessageList::is_linked(*impl_);
}

struct FdWatcher::Impl : CallbackNode, Source {
  Impl(LoopState& state, int watched, Priority of, std::function<void(uint32_t)> to_call)
      : CallbackNode(state), callback(std::move(to_call)) {
    fd = watched;
    priority = of;
    run = [](Message& message) { static_cast<Impl&>(message).on_ready(); };
  }

  void on_ready() {
    // The wish may have changed since the backend looked.
    const uint32_t seen = std::exchange(ready, 0) & (wanted | POLLERR | POLLHUP | POLLNVAL);
    if (seen != 0 && !guarded([this, seen] { callback(seen); })) return;
    if (wanted != 0) loop.backend->arm(*this);
  }

  std::function<void(uint32_t)> callback;
};

FdWatcher::FdWatcher(EventLoop& loop, int fd, Priority priority,
                     std::function<void(uint32_t)> callback)
    : impl_(std::make_unique<Impl>(loop.state(), fd, priority, std::move(callback))) {}

FdWatcher::~FdWatcher() {
  watch(0);
  retire(std::move(impl_));
}

void FdWatcher::watch(uint32_t poll_events) {
  impl_->loop.assert_usable();
  if (impl_->wanted == poll_events) return;
  impl_->wanted = poll_events;
  if (poll_events == 0) {
    impl_->loop.backend->disarm(*impl_);
    if (MessageList::is_linked(*impl_)) MessageList::unlink(*impl_);
    impl_->ready = 0;
    return;
  }
  // Else it is armed when its callback has run.
  if (!impl_->running && !MessageList::is_linked(*impl_)) impl_->loop.backend->arm(*impl_);
}

}  // namespace skiff::loop
