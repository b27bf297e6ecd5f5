// SPDX-License-Identifier: GPL-2.0-or-later
// EventLoop: one thread's loop. It waits for descriptors, timers, messages and I/O, and runs what
// became due.
//
// Backends: io_uring (task work deferred for the main loop and IOThreads, default task work for
// vCPU contexts, so that a completion ends KVM_RUN) or epoll where io_uring is refused; one
// conformance suite covers both. Thread: created anywhere; bound to the thread that first turns it,
// which is the only one to turn or destroy it.
//         post(), stop() and BottomHalf::schedule() may be called from any thread.
// Ownership: watchers, timers and bottom halves are owned by their users and must go before the
// loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "loop/result.h"

struct io_uring_sqe;

namespace skiff::loop {

class Clock;
class EventLoop;
class LoopBackend;
class Poller;
struct LoopState;  // Private parts, loop/event_loop_state.h.

// Who goes first in a turn. kRealTime is served until empty; every other class has a budget per
// turn.
enum class Priority : uint8_t {
  kRealTime,    // Real-time timers, vCPU stops and kicks.
  kCompletion,  // I/O of the guest that has ended.
  kSubmission,  // New work of the guest.
  kDevice,      // Device bottom halves, ordinary timers.
  kService,     // API, VNC, migration: the lowest, never starved for ever.
};
inline constexpr size_t kPriorityCount = 5;

// What a loop is told from another thread without allocation. The sender keeps it in place until
// `run` is called, on the loop's thread; `run` may send it again.
struct Message {
  void (*run)(Message&) = nullptr;
  Message* next = nullptr;  // The loop's, and so is prev.
  Message* prev = nullptr;
  Priority priority = Priority::kDevice;
};

// One operation on the loop's ring; `done` gets the CQE's result, in class kCompletion. Kept in
// place by its owner until then (with a multishot operation: until a CQE without
// IORING_CQE_F_MORE), and awaited before the loop goes.
struct RingOperation {
  void (*done)(RingOperation&, int32_t result, uint32_t cqe_flags) = nullptr;
};

// What a loop has done since it was made; for tests and measurements.
struct LoopCounters {
  uint64_t turns = 0;
  uint64_t sleeps = 0;      // Turns that were ready to wait for something.
  uint64_t wakes = 0;       // System calls made by other threads to end such a wait.
  uint64_t enters = 0;      // io_uring_enter or epoll_wait calls.
  uint64_t operations = 0;  // RingOperations that have ended.
  // Spins before a sleep (Options::poll_max_ns): those that something ended, those that ran out.
  uint64_t poll_hits = 0;
  uint64_t poll_misses = 0;
  uint64_t poll_spun_ns = 0;
  int64_t worst_real_time_lateness_ns = 0;  // Of timers in class kRealTime.
};

class EventLoop {
 public:
  enum class Backend : uint8_t { kAuto, kIoUring, kEpoll };
  // How io_uring tells the thread of a completion (measured: mixing them up is a hang, not a
  // slowdown).
  enum class TaskWork : uint8_t {
    kDeferred,  // Only when the loop waits: main loop, IOThreads.
    // At once, ending KVM_RUN with EINTR: vCPU contexts. So do the loop's timers. The thread turns
    // with Wait::kNo until is_idle(), then enters KVM_RUN. What the kernel delivers in the instant
    // between the two does not end KVM_RUN: see Options::kick_at.
    kInterrupt,
  };
  enum class Wait : uint8_t { kNo, kUntilEvent };

  struct Options {
    Backend backend = Backend::kAuto;
    TaskWork task_work = TaskWork::kDeferred;
    const Clock* clock = nullptr;  // Null: CLOCK_MONOTONIC.
    // With kInterrupt: called on the thread that posts, schedules or stops when the loop's own is
    // outside a turn, to end KVM_RUN: by immediate_exit and a signal, which come too early for
    // none. Must not call the loop.
    std::function<void()> kick = {};
    // With kInterrupt: called at the end of a turn, on the loop's thread: at this time of
    // CLOCK_MONOTONIC the thread must be made to turn the loop, in KVM_RUN or on its way there. A
    // later call replaces the time. It carries the timers, and the guard against completions that
    // come just before KVM_RUN: 1 ms while RingOperations are in flight, 50 ms while descriptors
    // are watched. Without it, timers are timeouts of the ring and there is no guard.
    std::function<void(int64_t)> kick_at = {};
    // The longest that run_once(kUntilEvent) may spin before it sleeps; 0: never. How long it
    // really does, between nothing and this, it learns from what spinning would have saved.
    int64_t poll_max_ns = 0;
  };

  // Fails with kUnsupported when the named backend is refused; kAuto falls back to epoll and says
  // so once.
  static Result<std::unique_ptr<EventLoop>> create(const Options& options);
  static Result<std::unique_ptr<EventLoop>> create() { return create(Options{}); }
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Turns until stop().
  void run();
  // One turn; true if anything ran. With kUntilEvent it sleeps when there is nothing to do.
  bool run_once(Wait wait);
  // Any thread: run() returns after the present turn. Sticky until run() has returned. From another
  // thread the loop must outlive this call.
  void stop();

  // Any thread: `callback` runs on the loop's thread, in order of posting. Allocates; not for a
  // request's path. What is posted may be the news that the loop may be destroyed.
  void post(std::function<void()> callback);
  // Any thread, no allocation.
  void post(Message& message);

  // Home thread: `poller` is looked at whenever the loop spins, until it is removed. Not from
  // inside the poller's own functions.
  void add_poller(Poller& poller);
  void remove_poller(Poller& poller);
  // Home thread: as Options::poll_max_ns.
  void set_poll_max_ns(int64_t max_ns);

  bool is_current()
      const;  // Is the caller the loop's thread? Before the first turn: yes, anybody's.
  int64_t now_ns() const;  // The clock, read afresh.
  bool uses_io_uring() const;
  LoopCounters counters() const;  // Any thread.

  // Home thread, io_uring backend only: the next free SQE, to be filled by the caller and submitted
  // with the turn's own wait; its user_data is set already and stays as it is. `operation.done`
  // runs in a later turn, never inside this call. Never null: a full queue is submitted, which
  // binds a loop that has not turned yet to the calling thread.
  io_uring_sqe* next_sqe(RingOperation& operation);
  // Does the ring's kernel know this IORING_OP_*? False without a ring.
  bool ring_supports(uint8_t opcode) const;
  // Home thread: makes `fd` a fixed file of the ring, for SQEs with IOSQE_FIXED_FILE. Nothing when
  // there is no ring, no room or the kernel refuses; then the descriptor itself does. The file
  // stays open, locks and all, until some time after unregister_file().
  std::optional<uint32_t> register_file(int fd);
  void unregister_file(uint32_t index);

  // Home thread: hands the SQEs over now instead of with the turn's wait. For those who want to
  // know how long that takes; everybody else saves the system call.
  void submit_sqes();
  // Home thread: how much has come from outside so far: completions, ready descriptors, messages of
  // other threads, timers that expired. What the loop's own callbacks schedule is not counted.
  uint64_t arrivals() const;
  // Home thread: when the first timer is due, INT64_MAX when none is armed.
  int64_t next_deadline_ns() const;
  // Home thread, between turns, with kInterrupt: is there nothing for a turn to do? Looks at memory
  // only, so that a vCPU's thread can ask before each KVM_RUN. Never true without a ring or before
  // the first turn.
  bool is_idle() const;

  LoopState& state() { return *state_; }  // For BottomHalf, Timer, FdWatcher.

 private:
  explicit EventLoop(std::unique_ptr<LoopState> state);
  std::unique_ptr<LoopState> state_;
};

// Work that can be looked at instead of being waited for: a virtqueue's avail index. While the loop
// spins, nobody need notify it.
//
// Thread: home thread throughout, inside a turn but outside all callbacks. Ownership: borrowed by
// the loop from add_poller() to remove_poller().
class Poller {
 public:
  virtual ~Poller() = default;
  // Is there work? Asked again and again: a load or two, no system call.
  virtual bool is_ready() const = 0;
  // From now on the loop looks: notifications may be off.
  virtual void begin_polling() = 0;
  // The loop looks no more. If there is work, schedules it (BottomHalf) and returns true: the loop
  // will not sleep. Otherwise notifications are on and, after that and a full fence, there was no
  // work: what comes from here on is notified.
  virtual bool end_polling() = 0;
};

// Work to be done soon on the loop's thread. Scheduled during a turn, it runs in the next one, the
// highest priority first; scheduling it again before it ran changes nothing.
//
// These four (bottom half, timer, descriptor watcher, NotifierWatch) may be destroyed in any
// callback of the loop, their own included.
class BottomHalf {
 public:
  BottomHalf(EventLoop& loop, Priority priority, std::function<void()> callback);
  // Home thread, when nobody can schedule it any more; a pending run is cancelled.
  ~BottomHalf();
  BottomHalf(const BottomHalf&) = delete;
  BottomHalf& operator=(const BottomHalf&) = delete;

  void schedule();  // Any thread.
  void cancel();    // Home thread.

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Home thread throughout. One shot: arm it again in the callback to repeat.
class Timer {
 public:
  Timer(EventLoop& loop, Priority priority, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void arm_at(int64_t deadline_ns);  // On the loop's clock. Re-arming replaces the deadline.
  void arm_after(int64_t delay_ns);
  void cancel();
  bool is_armed() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Home thread throughout. Calls back while the descriptor is ready for what is watched
// (level-triggered).
class FdWatcher {
 public:
  FdWatcher(EventLoop& loop, int fd, Priority priority, std::function<void(uint32_t)> callback);
  ~FdWatcher();  // After this the callback never runs. The descriptor may be closed afterwards.
  FdWatcher(const FdWatcher&) = delete;
  FdWatcher& operator=(const FdWatcher&) = delete;

  // POLLIN, POLLOUT (POLLERR and POLLHUP come unasked); 0 watches nothing. The callback gets what
  // is ready.
  void watch(uint32_t poll_events);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace skiff::loop
