// SPDX-License-Identifier: GPL-2.0-or-later
// SimCore and SimThread: simulated threads that sleep until they are told, and take turns on cores.
//
// A turn is not interrupted: others that are ready wait for its end, in the order in which they
// became ready. Thread: one at a time. Ownership: threads borrow their core, cores the queue.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

#include "vmm/experiment/simulator/event_queue.h"

namespace skiff::vmm {

class SimThread;

class SimCore {
 public:
  SimCore(EventQueue& events, int64_t switch_ns) : events_(events), switch_ns_(switch_ns) {}
  void add_ready(SimThread& thread);

 private:
  void run_next(bool from_idle);
  void finish_turn(SimThread& thread);
  void leave(SimThread& thread, bool more);

  EventQueue& events_;
  const int64_t switch_ns_;
  std::deque<SimThread*> ready_;
  SimThread* last_ = nullptr;
  bool busy_ = false;
};

class SimThread {
 public:
  struct Work {
    // At the begin of a turn: takes what is to be done; its CPU time. `from_idle`: it slept, and so
    // did its core.
    std::function<int64_t(bool from_idle)> begin;
    // At its end: what comes of it. True when there is more to do.
    std::function<bool()> end;
    // CPU time to go to sleep after that, when there is no more to do for the core either. Who is
    // told meanwhile does not.
    int64_t sleep_ns = 0;
  };
  SimThread(EventQueue& events, SimCore& core, Work work)
      : events_(events), core_(core), work_(std::move(work)) {}
  SimThread(const SimThread&) = delete;
  SimThread& operator=(const SimThread&) = delete;

  // There is something to do. A thread that sleeps is ready after `wake_ns`.
  void tell(int64_t wake_ns);
  const SimCore& core() const { return core_; }
  bool is_asleep() const { return state_ == State::kAsleep; }
  int64_t cpu_ns() const { return cpu_ns_; }

 private:
  friend class SimCore;
  enum class State : uint8_t { kAsleep, kWaking, kReady, kRunning };

  EventQueue& events_;
  SimCore& core_;
  Work work_;
  State state_ = State::kAsleep;
  bool was_asleep_ = true;
  bool told_ = false;  // While it ran.
  int64_t cpu_ns_ = 0;
};

}  // namespace skiff::vmm
