// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/placement.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "devices/core/guest_memory.h"
#include "firmware/bytes.h"
#include "firmware/layout.h"
#include "firmware/memory_map.h"
#include "loop/result.h"

namespace skiff::firmware {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

namespace {

std::string range_text(uint64_t begin, uint64_t end) {
  return "(" + hex(begin) + " to " + hex(end) + ")";
}

}  // namespace

Placement::Placement(const devices::GuestMemory& memory, std::span<const E820Entry> memory_map)
    : memory_(memory) {
  taken_.push_back({"the BIOS data area", 0, kPageBytes});
  taken_.push_back({"the BIOS area", kBiosAreaAddress.value, kHighMemoryAddress.value});
  for (const E820Entry& entry : memory_map) {
    if (entry.type == E820Type::kRam) continue;
    taken_.push_back({"a reserved range of the memory map", entry.base.value,
                      checked_add(entry.base.value, entry.size_bytes).value_or(UINT64_MAX)});
  }
}

const Placement::Taken* Placement::find_overlap(uint64_t begin, uint64_t end) const {
  const auto found = std::ranges::find_if(
      taken_, [&](const Taken& taken) { return begin < taken.end && taken.begin < end; });
  return found == taken_.end() ? nullptr : &*found;
}

Result<std::span<std::byte>> Placement::claim(const std::string& name, devices::GuestAddress base,
                                              uint64_t size_bytes) {
  if (size_bytes == 0) return Error(ErrorKind::kCorrupt, name + " is empty");
  const auto end = checked_add(base.value, size_bytes);
  if (!end)
    return Error(ErrorKind::kCorrupt, name + " at " + hex(base.value) + " with " +
                                          size_text(size_bytes) +
                                          " goes past the end of the address space");
  const auto bytes = memory_.translate(base, size_bytes);
  if (!bytes)
    return Error(ErrorKind::kInvalidArgument,
                 name + " " + range_text(base.value, *end) + " does not fit in the guest's " +
                     size_text(memory_bytes()) + " of memory: give it more memory");
  if (const Taken* other = find_overlap(base.value, *end))
    return Error(ErrorKind::kCorrupt, name + " " + range_text(base.value, *end) + " overlaps " +
                                          other->name + " " + range_text(other->begin, other->end));
  taken_.push_back({name, base.value, *end});
  return *bytes;
}

Result<void> Placement::put(const std::string& name, devices::GuestAddress base,
                            std::span<const std::byte> bytes) {
  const auto into = claim(name, base, bytes.size());
  if (!into) return into.error();
  std::ranges::copy(bytes, into->begin());
  return {};
}

Result<Placement::Claim> Placement::claim_high(const std::string& name, uint64_t size_bytes,
                                               uint64_t end) {
  if (size_bytes == 0) return Error(ErrorKind::kInvalidArgument, name + " is empty");
  std::optional<uint64_t> best;
  for (const devices::GuestRegion& region : memory_.regions()) {
    uint64_t top = std::min(end, region.base.value + region.size_bytes);
    // Each round either fits, runs out of room or steps below one of the taken ranges.
    while (top > region.base.value && top - region.base.value >= size_bytes) {
      const uint64_t base = align_down(top - size_bytes, kPageBytes);
      if (base < region.base.value) break;
      const Taken* other = find_overlap(base, base + size_bytes);
      if (other == nullptr) {
        best = std::max(best.value_or(0), base);
        break;
      }
      top = other->begin;
    }
  }
  if (!best)
    return Error(ErrorKind::kInvalidArgument, name + " (" + size_text(size_bytes) +
                                                  ") finds no room below " + hex(end) +
                                                  " in the guest's " + size_text(memory_bytes()) +
                                                  " of memory: give it more memory");
  auto bytes = claim(name, {*best}, size_bytes);
  if (!bytes) return bytes.error();
  return Claim{.base = {*best}, .bytes = *bytes};
}

}  // namespace skiff::firmware
