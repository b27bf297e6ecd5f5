// SPDX-License-Identifier: GPL-2.0-or-later
// BlockLimits: what an image or a device can do, and what it wants of its requests.
//
// Thread: constant after open. Ownership: plain values.
#pragma once

#include <cstdint>

namespace skiff::block {

// What offsets, lengths and sizes of disks are multiples of.
inline constexpr uint64_t kSectorBytes = 512;

struct BlockLimits {
  // Of offsets and lengths, and of buffers: what avoids a bounce or a read-modify-write.
  uint32_t alignment_bytes = 512;
  uint32_t memory_alignment_bytes = 1;
  uint32_t physical_block_bytes = 512;  // What the medium writes at once.
  bool discard = false;
  bool write_zeroes = false;
};

}  // namespace skiff::block
