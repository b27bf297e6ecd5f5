// SPDX-License-Identifier: GPL-2.0-or-later
// TimerHeap: armed timers, the earliest first; equal deadlines in the order of arming.
//
// A heap with four children to a node, whose nodes hold the deadlines, so that a sift touches few
// cache lines. Each timer knows its place: cancelling is O(log n) too. Room is made when a timer is
// made, so that arming never allocates.
// Thread: one. Ownership: borrows the timers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace skiff::loop {

// Embedded in what is timed.
struct TimerEntry {
  static constexpr size_t kNotArmed = std::numeric_limits<size_t>::max();
  size_t place = kNotArmed;  // The heap's.
};

class TimerHeap {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // One call for each timer that may be armed at the same time.
  void add_room();
  void remove_room() { --timers_; }

  void arm(TimerEntry& entry, int64_t deadline_ns);  // Replaces an earlier deadline.
  void cancel(TimerEntry& entry);                    // Does nothing if it is not armed.

  int64_t earliest_ns() const { return nodes_.empty() ? kNever : nodes_.front().deadline_ns; }
  // Disarms the earliest; there is one.
  TimerEntry& pop();

 private:
  struct Node {
    int64_t deadline_ns;
    uint64_t sequence;
    TimerEntry* entry;
    bool before(const Node& other) const {
      return deadline_ns != other.deadline_ns ? deadline_ns < other.deadline_ns
                                              : sequence < other.sequence;
    }
  };

  void put(size_t place, const Node& node);
  void sift_up(size_t place, Node node);
  void sift_down(size_t place, Node node);

  std::vector<Node> nodes_;
  size_t timers_ = 0;
  uint64_t next_sequence_ = 0;
};

}  // namespace skiff::loop
