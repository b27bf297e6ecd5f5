// SPDX-License-Identifier: GPL-2.0-or-later
// FakeGuestMemory: guest RAM for tests, each region an allocation of its own, so that a sanitizer
// sees an access that leaves it.
//
// Thread: as GuestMemory. Ownership: owns the bytes; outlives its users.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"

namespace skiff::devices {

class FakeGuestMemory {
 public:
  struct Range {
    GuestAddress base;
    uint64_t size_bytes = 0;
  };

  // Zeroed RAM from address 0.
  explicit FakeGuestMemory(uint64_t size_bytes)
      : FakeGuestMemory(std::vector<Range>{{GuestAddress{0}, size_bytes}}) {}
  // Sorted by base, not overlapping.
  explicit FakeGuestMemory(const std::vector<Range>& ranges) {
    std::vector<GuestRegion> regions;
    for (const Range& range : ranges) {
      auto* bytes = static_cast<std::byte*>(::operator new(range.size_bytes, kAlignment));
      std::memset(bytes, 0, range.size_bytes);
      bytes_.emplace_back(bytes);
      regions.push_back({.base = range.base, .host = bytes, .size_bytes = range.size_bytes});
    }
    memory_ = GuestMemory(std::move(regions));
  }
  FakeGuestMemory(const FakeGuestMemory&) = delete;
  FakeGuestMemory& operator=(const FakeGuestMemory&) = delete;

  const GuestMemory& memory() const { return memory_; }
  operator const GuestMemory&() const { return memory_; }  // NOLINT: stands in for guest memory.

 private:
  static constexpr std::align_val_t kAlignment{4096};
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete(bytes, kAlignment); }
  };

  std::vector<std::unique_ptr<std::byte, Free>> bytes_;
  GuestMemory memory_;
};

}  // namespace skiff::devices
