// SPDX-License-Identifier: GPL-2.0-or-later
// GuestMemory: the guest's RAM as this process sees it.
//
// The map of regions is fixed when it is made. The bytes are shared with running vCPUs: read
// anything that decides something exactly once, into a copy. Thread: any. Ownership: borrows the
// mappings; whoever made them keeps them until every user is gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace skiff::devices {

struct GuestAddress {
  uint64_t value = 0;
  auto operator<=>(const GuestAddress&) const = default;
  // The caller sees to it that this does not wrap.
  GuestAddress operator+(uint64_t offset) const { return {value + offset}; }
};

struct GuestRegion {
  GuestAddress base;
  std::byte* host = nullptr;
  uint64_t size_bytes = 0;
};

// A region that other processes can map as well.
struct SharedRegion {
  GuestRegion region;
  int fd = -1;  // Borrowed.
  uint64_t file_offset = 0;
};

class GuestMemory {
 public:
  GuestMemory() = default;
  // Sorted by base, not overlapping.
  explicit GuestMemory(std::vector<GuestRegion> regions);

  std::span<const GuestRegion> regions() const { return regions_; }
  uint64_t size_bytes() const;

  // The host bytes of [address, address + size), which must lie within one region; nothing
  // otherwise. Never trusts the sum not to wrap.
  std::optional<std::span<std::byte>> translate(GuestAddress address, uint64_t size_bytes) const;

  // Copy in and out; false (and nothing or a part copied) when the range leaves RAM.
  bool read(GuestAddress address, std::span<std::byte> into) const;
  bool write(GuestAddress address, std::span<const std::byte> from) const;

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  std::optional<T> load(GuestAddress address) const {
    T value;
    if (!read(address, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
    return value;
  }
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  bool store(GuestAddress address, const T& value) const {
    return write(address, std::as_bytes(std::span(&value, 1)));
  }

 private:
  std::vector<GuestRegion> regions_;
};

}  // namespace skiff::devices
