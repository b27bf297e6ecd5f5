// SPDX-License-Identifier: GPL-2.0-or-later
// Bounds-checked reading of little-endian records from files nobody has checked, and sums that do
// not wrap.
//
// Thread: any; pure functions. Ownership: results of slice() borrow from their argument.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>

namespace skiff::firmware {

static_assert(std::endian::native == std::endian::little, "records are copied as they are");

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

constexpr uint64_t align_down(uint64_t value, uint64_t power_of_two) {
  return value & ~(power_of_two - 1);
}

// Nothing when any byte of [offset, offset + size) lies outside.
inline std::optional<std::span<const std::byte>> slice(std::span<const std::byte> bytes,
                                                       uint64_t offset, uint64_t size_bytes) {
  if (offset > bytes.size() || size_bytes > bytes.size() - offset) return std::nullopt;
  return bytes.subspan(offset, size_bytes);
}

// A copy of the T at `offset`; nothing when it is not wholly inside.
template <typename T>
  requires std::is_trivially_copyable_v<T>
std::optional<T> read_record(std::span<const std::byte> bytes, uint64_t offset) {
  const auto part = slice(bytes, offset, sizeof(T));
  if (!part) return std::nullopt;
  T value;
  std::memcpy(&value, part->data(), sizeof(T));
  return value;
}

// For messages: "0x1000000".
std::string hex(uint64_t value);
// For messages: "16 MiB" when it is whole, "4097 bytes" when not.
std::string size_text(uint64_t size_bytes);

}  // namespace skiff::firmware
