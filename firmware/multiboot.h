// SPDX-License-Identifier: GPL-2.0-or-later
// Multiboot 1 (Multiboot Specification version 0.6.96).
//
// Thread: one at a time. Ownership: borrows file and Placement.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "firmware/boot.h"
#include "firmware/placement.h"
#include "loop/result.h"

namespace skiff::firmware {

// 3.1.1 "The layout of Multiboot header".
struct MultibootHeader {
  uint64_t file_offset = 0;
  uint32_t flags = 0;

  // Without them the file must be a 32-bit ELF file.
  bool has_address_fields() const;
};

// Looks in the first 8 KiB for a header whose checksum is right.
std::optional<MultibootHeader> find_multiboot_header(std::span<const std::byte> file);

loop::Result<BootState> load_multiboot(std::span<const std::byte> file, const BootOptions& options,
                                       Placement& placement);

}  // namespace skiff::firmware
