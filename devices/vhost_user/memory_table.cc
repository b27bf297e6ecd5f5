// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/memory_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// Whatever a driver aligns in guest memory is aligned in ours then.
constexpr uint64_t kPageBytes = 4096;

bool wraps(uint64_t start, uint64_t size_bytes) { return start + size_bytes < start; }

bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

Result<void> check_region(const VhostMemoryRegion& region) {
  const uint64_t low_bits =
      (region.guest_address | region.user_address | region.file_offset) % kPageBytes;
  if (region.size_bytes != 0 && low_bits == 0 && !wraps(region.guest_address, region.size_bytes) &&
      !wraps(region.user_address, region.size_bytes) &&
      !wraps(region.file_offset, region.size_bytes))
    return {};
  return Error(
      ErrorKind::kCorrupt,
      fmt::format("A memory region of {:#x} bytes at {:#x}, {:#x} in its process and {:#x} "
                  "in its file, wraps or is not aligned to pages",
                  region.size_bytes, region.guest_address, region.user_address,
                  region.file_offset));
}

}  // namespace

Result<void> MemoryTable::add(const VhostMemoryRegion& region, int fd) {
  SKIFF_RETURN_IF_ERROR(check_region(region));
  if (regions_.size() >= kRegionsMax)
    return Error(ErrorKind::kExhausted, fmt::format("More than {} memory regions", kRegionsMax));
  for (const Region& other : regions_) {
    if (!overlap(region.guest_address, region.size_bytes, other.shared.guest_address,
                 other.shared.size_bytes) &&
        !overlap(region.user_address, region.size_bytes, other.shared.user_address,
                 other.shared.size_bytes))
      continue;
    return Error(ErrorKind::kCorrupt,
                 fmt::format("Two memory regions overlap at {:#x} and {:#x}", region.guest_address,
                             other.shared.guest_address));
  }
  auto mapping = SharedMapping::map(fd, region.file_offset, region.size_bytes);
  if (!mapping) return mapping.error();
  regions_.push_back({region, *std::move(mapping)});
  std::ranges::sort(regions_, {}, [](const Region& r) { return r.shared.guest_address; });
  update_guest();
  return {};
}

Result<void> MemoryTable::remove(const VhostMemoryRegion& region) {
  const auto found = std::ranges::find_if(regions_, [&](const Region& one) {
    return one.shared.guest_address == region.guest_address &&
           one.shared.user_address == region.user_address &&
           one.shared.size_bytes == region.size_bytes;
  });
  if (found == regions_.end())
    return Error(ErrorKind::kNotFound, fmt::format("No memory region of {:#x} bytes at {:#x}",
                                                   region.size_bytes, region.guest_address));
  regions_.erase(found);
  update_guest();
  return {};
}

void MemoryTable::clear() {
  regions_.clear();
  update_guest();
}

void MemoryTable::update_guest() {
  std::vector<GuestRegion> regions;
  regions.reserve(regions_.size());
  for (const Region& region : regions_)
    regions.push_back({.base = {region.shared.guest_address},
                       .host = region.mapping.bytes().data(),
                       .size_bytes = region.shared.size_bytes});
  guest_ = GuestMemory(std::move(regions));
}

std::optional<GuestAddress> MemoryTable::guest_address(uint64_t user_address) const {
  for (const Region& region : regions_) {
    const VhostMemoryRegion& shared = region.shared;
    if (user_address < shared.user_address) continue;
    const uint64_t offset = user_address - shared.user_address;
    if (offset < shared.size_bytes) return GuestAddress{shared.guest_address + offset};
  }
  return std::nullopt;
}

bool MemoryTable::has_faulted() const {
  return std::ranges::any_of(regions_, [](const Region& r) { return r.mapping.has_faulted(); });
}

}  // namespace skiff::devices
