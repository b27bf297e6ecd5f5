// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/timer_heap.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "loop/check.h"

namespace skiff::loop {
namespace {

constexpr size_t kChildren = 4;

}  // namespace

void TimerHeap::add_room() {
  ++timers_;
  if (nodes_.capacity() < timers_) nodes_.reserve(std::max<size_t>(8, timers_ * 2));
}

void TimerHeap::arm(TimerEntry& entry, int64_t deadline_ns) {
  cancel(entry);
  SKIFF_CHECK(nodes_.size() < nodes_.capacity());
  const Node node{deadline_ns, next_sequence_++, &entry};
  nodes_.push_back(node);
  sift_up(nodes_.size() - 1, node);
}

void TimerHeap::cancel(TimerEntry& entry) {
  const size_t place = entry.place;
  if (place == TimerEntry::kNotArmed) return;
  SKIFF_CHECK(place < nodes_.size() && nodes_[place].entry == &entry);
  entry.place = TimerEntry::kNotArmed;
  const Node last = nodes_.back();
  nodes_.pop_back();
  if (place == nodes_.size()) return;
  // The last one fills the gap, and may belong above or below it.
  if (place > 0 && last.before(nodes_[(place - 1) / kChildren]))
    sift_up(place, last);
  else
    sift_down(place, last);
}

TimerEntry& TimerHeap::pop() {
  SKIFF_CHECK(!nodes_.empty());
  TimerEntry& entry = *nodes_.front().entry;
  cancel(entry);
  return entry;
}

void TimerHeap::put(size_t place, const Node& node) {
  nodes_[place] = node;
  node.entry->place = place;
}

void TimerHeap::sift_up(size_t place, Node node) {
  while (place > 0) {
    const size_t parent = (place - 1) / kChildren;
    if (!node.before(nodes_[parent])) break;
    put(place, nodes_[parent]);
    place = parent;
  }
  put(place, node);
}

void TimerHeap::sift_down(size_t place, Node node) {
  while (true) {
    const size_t first_child = place * kChildren + 1;
    if (first_child >= nodes_.size()) break;
    const size_t end = std::min(first_child + kChildren, nodes_.size());
    size_t smallest = first_child;
    for (size_t child = first_child + 1; child < end; ++child)
      if (nodes_[child].before(nodes_[smallest])) smallest = child;
    if (!nodes_[smallest].before(node)) break;
    put(place, nodes_[smallest]);
    place = smallest;
  }
  put(place, node);
}

}  // namespace skiff::loop
