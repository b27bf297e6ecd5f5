// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/memory_map.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/bytes.h"
#include "firmware/layout.h"

namespace skiff::firmware {
namespace {

struct Interval {
  uint64_t begin;
  uint64_t end;
};

Interval to_interval(uint64_t base, uint64_t size_bytes) {
  return {base, checked_add(base, size_bytes).value_or(UINT64_MAX)};
}

std::vector<Interval> merge(std::vector<Interval> intervals) {
  std::ranges::sort(intervals, {}, &Interval::begin);
  std::vector<Interval> merged;
  for (const Interval& next : intervals) {
    if (next.begin == next.end) continue;
    if (!merged.empty() && next.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, next.end);
    } else {
      merged.push_back(next);
    }
  }
  return merged;
}

E820Entry to_entry(const Interval& interval, E820Type type) {
  return {.base = {interval.begin}, .size_bytes = interval.end - interval.begin, .type = type};
}

}  // namespace

std::vector<E820Entry> make_memory_map(const devices::GuestMemory& memory,
                                       std::span<const MemoryRange> reserved) {
  std::vector<Interval> holes = {{kBiosAreaAddress.value, kHighMemoryAddress.value}};
  for (const MemoryRange& range : reserved)
    holes.push_back(to_interval(range.base.value, range.size_bytes));
  holes = merge(std::move(holes));

  std::vector<E820Entry> map;
  map.reserve(holes.size());
  for (const Interval& hole : holes) map.push_back(to_entry(hole, E820Type::kReserved));
  for (const devices::GuestRegion& region : memory.regions()) {
    Interval rest = to_interval(region.base.value, region.size_bytes);
    for (const Interval& hole : holes) {
      if (hole.end <= rest.begin || hole.begin >= rest.end) continue;
      if (hole.begin > rest.begin)
        map.push_back(to_entry({rest.begin, hole.begin}, E820Type::kRam));
      rest.begin = std::min(hole.end, rest.end);
    }
    if (rest.begin < rest.end) map.push_back(to_entry(rest, E820Type::kRam));
  }
  std::ranges::sort(map, {}, &E820Entry::base);
  return map;
}

}  // namespace skiff::firmware
