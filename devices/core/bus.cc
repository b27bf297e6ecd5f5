// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/core/bus.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "loop/mutex.h"
#include "loop/result.h"
#include "spdlog/fmt/fmt.h"

namespace skiff::devices {

loop::Result<void> AddressBus::add(uint64_t base, uint64_t size_bytes, BusDevice& device) {
  if (size_bytes == 0 || base + (size_bytes - 1) < base)
    return loop::Error(loop::ErrorKind::kInvalidArgument,
                       fmt::format("Bus range {:#x}+{:#x} is empty or wraps", base, size_bytes));
  const loop::SharedWriteLock lock(mutex_);
  std::erase_if(ranges_, [&](const Range& other) {
    return other.is_placeholder && (other.base <= base ? base - other.base < other.size_bytes
                                                       : other.base - base < size_bytes);
  });
  return insert({base, size_bytes, &device});
}

loop::Result<void> AddressBus::insert(const Range& range) {
  const auto next = std::ranges::upper_bound(ranges_, range.base, {}, &Range::base);
  const bool hits_next = next != ranges_.end() && next->base - range.base < range.size_bytes;
  const bool hits_previous =
      next != ranges_.begin() && range.base - std::prev(next)->base < std::prev(next)->size_bytes;
  if (hits_next || hits_previous)
    return loop::Error(loop::ErrorKind::kBusy,
                       fmt::format("Bus range {:#x}+{:#x} is taken", range.base, range.size_bytes));
  ranges_.insert(next, range);
  return {};
}

void AddressBus::add_placeholder(uint64_t base, uint64_t size_bytes, BusDevice& device) {
  const loop::SharedWriteLock lock(mutex_);
  [[maybe_unused]] const auto added = insert({base, size_bytes, &device, /*is_placeholder=*/true});
}

void AddressBus::remove_placeholders() {
  const loop::SharedWriteLock lock(mutex_);
  std::erase_if(ranges_, [](const Range& range) { return range.is_placeholder; });
}

void AddressBus::remove(uint64_t base) {
  const loop::SharedWriteLock lock(mutex_);
  std::erase_if(ranges_, [base](const Range& range) { return range.base == base; });
}

AddressBus::Range AddressBus::find(uint64_t address, uint64_t size_bytes) const {
  const loop::SharedReadLock lock(mutex_);
  const auto next = std::ranges::upper_bound(ranges_, address, {}, &Range::base);
  if (next == ranges_.begin()) return {};
  const Range& range = *std::prev(next);
  const uint64_t offset = address - range.base;
  if (offset >= range.size_bytes || size_bytes > range.size_bytes - offset) return {};
  return range;
}

bool AddressBus::read(uint64_t address, std::span<uint8_t> data) const {
  std::ranges::fill(data, uint8_t{0xff});
  const Range range = find(address, data.size());
  if (range.device == nullptr) return false;
  range.device->bus_read(address - range.base, data);
  return true;
}

bool AddressBus::write(uint64_t address, std::span<const uint8_t> data) const {
  const Range range = find(address, data.size());
  if (range.device == nullptr) return false;
  range.device->bus_write(address - range.base, data);
  return true;
}

uint64_t load_le(std::span<const uint8_t> data) {
  uint64_t value = 0;
  for (size_t i = 0; i < data.size() && i < 8; ++i) value |= uint64_t{data[i]} << (8 * i);
  return value;
}

void store_le(std::span<uint8_t> data, uint64_t value) {
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = i < 8 ? static_cast<uint8_t>(value >> (8 * i)) : uint8_t{0};
}

}  // namespace skiff::devices
