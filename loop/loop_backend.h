// SPDX-License-Identifier: GPL-2.0-or-later
// LoopBackend: how an EventLoop learns of what happens outside: io_uring or epoll.
//
// A backend only moves what happened into the loop's queues; it never runs a callback.
// Thread: wake() from any, the rest on the loop's (before the first turn: its creator's).
// Ownership: owned by the loop, and borrows its LoopState.
#pragma once

#include <cstdint>
#include <memory>

#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::loop {

class Ring;
struct LoopState;

// A descriptor that the loop watches for somebody. As a message it is the news that it is ready.
struct Source : Message {
  enum class Kind : uint8_t {
    kPoll,     // Reports poll events.
    kCounter,  // An eventfd that the backend also reads, so that it is ready once per wake.
  };

  int fd = -1;
  Kind kind = Kind::kPoll;
  bool gives_back = true;  // kCounter: a count that nobody was told of is written back.
  uint32_t wanted = 0;     // Poll events.
  uint32_t ready = 0;      // What the backend found since the callback last ran.
  void* slot = nullptr;    // The backend's.
};

class LoopBackend {
 public:
  static constexpr int64_t kForever = -1;

  virtual ~LoopBackend() = default;

  // Called by the thread that will turn the loop, once, before its first poll().
  virtual void bind() = 0;
  // Submits what is to be submitted, waits up to `timeout_ns` (0: not at all) for something to
  // happen, and queues what did. May return early with nothing.
  virtual void poll(int64_t timeout_ns) = 0;
  // Ends a poll() that sleeps; in interrupt mode KVM_RUN too.
  virtual void wake() = 0;
  // The turn is over. In interrupt mode all that was asked for must be with the kernel by then, and
  // `delay_ns` from now (kForever: nothing to do) something must end KVM_RUN.
  virtual void end_turn(int64_t delay_ns) = 0;

  // Has something come that poll(0) would find? Looks at memory only; what cannot be seen there is
  // not told.
  virtual bool has_news() const { return false; }
  virtual bool has_unsubmitted() const { return false; }
  // What may still come by itself: operations of users, descriptors that are watched.
  virtual bool has_operations() const { return false; }
  virtual bool has_watches() const { return false; }

  // Reports `source` once it is ready for `wanted`; also after each report, to hear of it again,
  // and when `wanted` has changed.
  virtual void arm(Source& source) = 0;
  // Forgets it: no report comes afterwards, and the descriptor may be closed.
  virtual void disarm(Source& source) = 0;

  virtual Ring* ring() = 0;  // Null where there is none.
  // Only where there is a ring.
  virtual io_uring_sqe* next_sqe(RingOperation& operation) = 0;
  // Hands over at once what would go with the next poll().
  virtual void submit() {}
};

// Both fail with the system's reason when this process may not have them.
Result<std::unique_ptr<LoopBackend>> create_uring_backend(LoopState& state,
                                                          EventLoop::TaskWork task_work);
Result<std::unique_ptr<LoopBackend>> create_epoll_backend(LoopState& state);

}  // namespace skiff::loop
