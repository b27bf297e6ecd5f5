// SPDX-License-Identifier: GPL-2.0-or-later
// What a disk holds whose reads are verified: every eight bytes tell where on the disk they lie.
//
// Freestanding. Thread: any; pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace skiff::vmm {

// The eight bytes at `offset_bytes`, a multiple of 8. No two on a disk are alike (the steps can be
// undone), and none is 0.
constexpr uint64_t pattern_at(uint64_t offset_bytes) {
  uint64_t value = offset_bytes / 8 + 1;
  value = (value ^ value >> 30) * 0xbf58'476d'1ce4'e5b9;
  value = (value ^ value >> 27) * 0x94d0'49bb'1331'11eb;
  return value ^ value >> 31;
}

// `size_bytes`: a multiple of 8; `bytes` aligned for them.
inline void fill_pattern(std::byte* bytes, uint64_t size_bytes, uint64_t offset_bytes) {
  auto* words = reinterpret_cast<uint64_t*>(bytes);
  for (uint64_t i = 0; i < size_bytes / 8; ++i) words[i] = pattern_at(offset_bytes + i * 8);
}
inline bool is_pattern(const std::byte* bytes, uint64_t size_bytes, uint64_t offset_bytes) {
  const auto* words = reinterpret_cast<const uint64_t*>(bytes);
  for (uint64_t i = 0; i < size_bytes / 8; ++i)
    if (words[i] != pattern_at(offset_bytes + i * 8)) return false;
  return true;
}

}  // namespace skiff::vmm
