// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/held_requests.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/event_loop.h"

namespace skiff::block {
namespace {

// For std's heaps, which have the largest element in front.
bool goes_later(const HeldRequest& a, const HeldRequest& b) {
  return a.due_ns != b.due_ns ? a.due_ns > b.due_ns : a.sequence > b.sequence;
}

}  // namespace

HeldRequests::HeldRequests(loop::EventLoop& loop,
                           std::function<void(std::span<const HeldRequest>)> release)
    : release_(std::move(release)),
      loop_(loop),
      timer_(loop, loop::Priority::kCompletion, [this] { run(); }) {}

HeldRequests::~HeldRequests() { SKIFF_CHECK(heap_.empty()); }

void HeldRequests::hold(HeldRequest held) {
  held.sequence = next_sequence_++;
  heap_.push_back(held);
  std::ranges::push_heap(heap_, goes_later);
  if (heap_.front().sequence == held.sequence) arm();
}

void HeldRequests::release_all() {
  for (HeldRequest& held : heap_) held.due_ns = 0;
  std::ranges::make_heap(heap_, goes_later);
  arm();
}

void HeldRequests::arm() {
  if (!heap_.empty()) timer_.arm_at(heap_.front().due_ns);
}

void HeldRequests::run() {
  const int64_t now_ns = loop_.now_ns();
  std::vector<HeldRequest> due;
  while (!heap_.empty() && heap_.front().due_ns <= now_ns) {
    std::ranges::pop_heap(heap_, goes_later);
    due.push_back(heap_.back());
    heap_.pop_back();
  }
  arm();
  // The last thing: a completion may be the news that the channel may go.
  release_(due);
}

}  // namespace skiff::block
