// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/core/guest_memory.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "loop/check.h"

namespace skiff::devices {

GuestMemory::GuestMemory(std::vector<GuestRegion> regions) : regions_(std::move(regions)) {
  for (size_t i = 1; i < regions_.size(); ++i)
    SKIFF_CHECK(regions_[i - 1].base.value + regions_[i - 1].size_bytes <= regions_[i].base.value);
}

uint64_t GuestMemory::size_bytes() const {
  uint64_t total = 0;
  for (const GuestRegion& region : regions_) total += region.size_bytes;
  return total;
}

std::optional<std::span<std::byte>> GuestMemory::translate(GuestAddress address,
                                                           uint64_t size_bytes) const {
  for (const GuestRegion& region : regions_) {
    if (address.value < region.base.value) continue;
    const uint64_t offset = address.value - region.base.value;
    if (offset >= region.size_bytes || size_bytes > region.size_bytes - offset) continue;
    return std::span(region.host + offset, size_bytes);
  }
  return std::nullopt;
}

bool GuestMemory::read(GuestAddress address, std::span<std::byte> into) const {
  const auto bytes = translate(address, into.size());
  if (!bytes) return false;
  std::ranges::copy(*bytes, into.begin());
  return true;
}

bool GuestMemory::write(GuestAddress address, std::span<const std::byte> from) const {
  const auto bytes = translate(address, from.size());
  if (!bytes) return false;
  std::ranges::copy(from, bytes->begin());
  return true;
}

}  // namespace skiff::devices
