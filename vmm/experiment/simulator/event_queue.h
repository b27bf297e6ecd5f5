// SPDX-License-Identifier: GPL-2.0-or-later
// EventQueue: simulated time. Actions run when their time comes, those of the same time in the
// order in which they were added, so that a simulation is the same each time.
//
// Thread: one at a time. Ownership: owns the actions.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

namespace skiff::vmm {

class EventQueue {
 public:
  int64_t now_ns() const { return now_ns_; }
  // Not before now.
  void at(int64_t time_ns, std::function<void()> action) {
    events_.push({time_ns < now_ns_ ? now_ns_ : time_ns, added_++, std::move(action)});
  }
  void after(int64_t delay_ns, std::function<void()> action) {
    at(now_ns_ + delay_ns, std::move(action));
  }
  // Until there is nothing left to do up to this time.
  void run_until(int64_t end_ns) {
    while (!events_.empty() && events_.top().time_ns <= end_ns) {
      // top() is constant, but it is taken out at once.
      Event event = std::move(const_cast<Event&>(events_.top()));
      events_.pop();
      now_ns_ = event.time_ns;
      event.action();
    }
    now_ns_ = end_ns;
  }

 private:
  struct Event {
    int64_t time_ns;
    uint64_t number;
    std::function<void()> action;
    bool operator<(const Event& other) const {
      return time_ns != other.time_ns ? time_ns > other.time_ns : number > other.number;
    }
  };
  std::priority_queue<Event> events_;
  int64_t now_ns_ = 0;
  uint64_t added_ = 0;
};

}  // namespace skiff::vmm
