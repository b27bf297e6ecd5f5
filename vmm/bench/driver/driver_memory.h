// SPDX-License-Identifier: GPL-2.0-or-later
// DriverMemory: memory that a driver shares with its device, given out from the bottom up and never
// taken back.
//
// The driver knows it by pointers, the device by guest-physical addresses; the two differ by a
// constant, which is 0 in the payload guest. Freestanding. Thread: one at a time. Ownership:
// borrows the memory, zeroed by whoever made it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace skiff::vmm {

class DriverMemory {
 public:
  // The device's name for `begin` is `address`, aligned as `begin` is.
  DriverMemory(std::byte* begin, uint64_t address, uint64_t size_bytes)
      : begin_(begin), address_(address), size_bytes_(size_bytes) {}

  // Null when there is no more. `alignment`: a power of two.
  std::byte* allocate(uint64_t size_bytes, uint64_t alignment) {
    const uint64_t at = (used_bytes_ + alignment - 1) & ~(alignment - 1);
    if (at > size_bytes_ || size_bytes > size_bytes_ - at) return nullptr;
    used_bytes_ = at + size_bytes;
    return begin_ + at;
  }
  uint64_t address_of(const std::byte* at) const {
    return address_ + static_cast<uint64_t>(at - begin_);
  }
  uint64_t used_bytes() const { return used_bytes_; }

 private:
  std::byte* begin_;
  uint64_t address_;
  uint64_t size_bytes_;
  uint64_t used_bytes_ = 0;
};

}  // namespace skiff::vmm
