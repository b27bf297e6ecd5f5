// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/timer_heap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace skiff::loop {
namespace {

TEST(TimerHeapTest, RandomArmingAndCancellingGivesSortedOrder) {
  std::mt19937 random(20240607);
  constexpr size_t kTimers = 300;
  TimerHeap heap;
  std::vector<TimerEntry> entries(kTimers);
  // Index to (deadline, order of arming); -1: not armed.
  std::vector<std::pair<int64_t, int>> model(kTimers, {-1, 0});
  for (size_t i = 0; i < kTimers; ++i) heap.add_room();
  for (int step = 0; step < 20'000; ++step) {
    const size_t which = random() % kTimers;
    if (random() % 3 == 0) {
      heap.cancel(entries[which]);
      model[which].first = -1;
    } else {
      const auto deadline = static_cast<int64_t>(random() % 100);
      heap.arm(entries[which], deadline);
      model[which] = {deadline, step};
    }
    ASSERT_EQ(entries[which].place != TimerEntry::kNotArmed, model[which].first >= 0);
  }
  std::vector<std::pair<std::pair<int64_t, int>, TimerEntry*>> expected;
  for (size_t i = 0; i < kTimers; ++i)
    if (model[i].first >= 0) expected.push_back({model[i], &entries[i]});
  std::sort(expected.begin(), expected.end());
  for (const auto& [key, entry] : expected) {
    ASSERT_EQ(heap.earliest_ns(), key.first);
    ASSERT_EQ(&heap.pop(), entry);
    ASSERT_EQ(entry->place, TimerEntry::kNotArmed);
  }
  EXPECT_EQ(heap.earliest_ns(), TimerHeap::kNever);
}

}  // namespace
}  // namespace skiff::loop
