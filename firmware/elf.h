// SPDX-License-Identifier: GPL-2.0-or-later
// Reads what a boot loader needs from an ELF file: loadable segments, entry points, who it says it
// is.
//
// Thread: any; pure functions. Ownership: ElfImage borrows the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "firmware/placement.h"
#include "loop/result.h"

namespace skiff::firmware {

struct ElfSegment {
  std::span<const std::byte> bytes;  // The rest, up to memory_bytes, is zero.
  uint64_t physical_address = 0;
  uint64_t memory_bytes = 0;
};

struct ElfImage {
  bool is_64_bit = false;
  uint64_t entry = 0;
  std::vector<ElfSegment> segments;
  std::optional<uint64_t> pvh_entry;  // XEN_ELFNOTE_PHYS32_ENTRY.
  bool is_linux = false;              // Has a note by "Linux".
};

bool is_elf(std::span<const std::byte> file);

// kUnsupported for an ELF file of another machine or kind, kCorrupt for a damaged one.
loop::Result<ElfImage> parse_elf(std::span<const std::byte> file);

// Copies the segments to their physical addresses. kCorrupt or kInvalidArgument when one is not
// where it can be, or when `entry` is in none of them.
loop::Result<void> place_elf(const ElfImage& image, uint64_t entry, Placement& placement);

}  // namespace skiff::firmware
