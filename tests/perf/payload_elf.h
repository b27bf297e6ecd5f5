// SPDX-License-Identifier: GPL-2.0-or-later
// Guests of a few instructions as PVH ELF files, which Skiff and QEMU boot alike.
//
// Thread: any; pure functions.
#pragma once

#include <cstdint>
#include <vector>

namespace skiff::perf {

inline constexpr uint16_t kDebugExitPort = 0xf4;

// Writes 0 to isa-debug-exit: the machine ends with status 1.
std::vector<uint8_t> exiting_payload();
// Writes '!' to COM1, then halts for ever.
std::vector<uint8_t> halting_payload();

// A 64-bit ELF file whose PVH note leads to `code`, in 32-bit protected mode at 1 MiB.
std::vector<uint8_t> pvh_elf(const std::vector<uint8_t>& code);

}  // namespace skiff::perf
