// SPDX-License-Identifier: GPL-2.0-or-later
// Guests of a few instructions, in 32-bit protected mode, as files that Skiff and QEMU boot alike.
//
// Thread: any; pure functions.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace skiff::payload {

using Code = std::vector<uint8_t>;
Code operator+(Code first, const Code& second);

Code out8(uint16_t port, uint8_t value);
Code out16(uint16_t port, uint16_t value);
Code halt();  // For ever.

// Writes `value` to isa-debug-exit at 0xf4: the machine ends with status (value << 1) | 1.
Code debug_exit(uint8_t value);

// A 64-bit ELF file whose PVH note leads to `code`, at 1 MiB.
std::vector<uint8_t> pvh_elf(const Code& code);
// A flat file with a multiboot 1 header and `code` behind it, loaded at 1 MiB by its address
// fields.
std::vector<uint8_t> multiboot_file(const Code& code);

}  // namespace skiff::payload
