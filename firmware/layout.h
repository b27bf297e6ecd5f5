// SPDX-License-Identifier: GPL-2.0-or-later
// Where the firmware puts things in the guest's memory.
//
//   from      to         what                                             reported to the guest as
//   0x00000   0x01000    real-mode vectors and BIOS data, left alone        RAM
//   0x01000   0x02000    GDT                                                RAM
//   0x02000   0x07000    hvm_start_info or multiboot information,           RAM
//                        with memory map and module list
//   0x07000   0x08000    boot_params, the "zero page"                       RAM
//   0x08000   0x09000    boot stack                                         RAM
//   0x09000   0x0f000    page tables                                        RAM
//   0x20000   0x30000    command line, and those of the modules             RAM
//   0x9fc00   0x100000   EBDA, VGA window, ROM area                         reserved
//     0xe0000   0x100000   ACPI tables; the RSDP comes first, where a legacy scan finds it
//   0x100000  ...        the kernel, where it asks to be (Linux: 16 MiB)    RAM
//   ...       4 GiB      initrd and modules, as high as possible            RAM
//
// Everything below 1 MiB but the ACPI tables is free for the guest once it has read it.
// Thread: any; constants. Ownership: none.
#pragma once

#include <cstdint>

#include "devices/core/guest_memory.h"

namespace skiff::firmware {

inline constexpr uint64_t kPageBytes = 4096;

inline constexpr devices::GuestAddress kGdtAddress{0x1000};

inline constexpr devices::GuestAddress kBootInfoAddress{0x2000};
inline constexpr uint64_t kBootInfoBytes = 0x5000;

inline constexpr devices::GuestAddress kZeroPageAddress{0x7000};

inline constexpr devices::GuestAddress kBootStackAddress{0x8000};
inline constexpr uint64_t kBootStackBytes = kPageBytes;

inline constexpr devices::GuestAddress kPageTablesAddress{0x9000};

inline constexpr devices::GuestAddress kCommandLineAddress{0x20000};
inline constexpr uint64_t kCommandLineBytes = 0x10000;

// What a PC's BIOS keeps for itself: never RAM for the guest, though there are bytes behind it.
inline constexpr devices::GuestAddress kBiosAreaAddress{0x9fc00};
inline constexpr devices::GuestAddress kHighMemoryAddress{0x100000};

inline constexpr devices::GuestAddress kAcpiAddress{0xe0000};
inline constexpr uint64_t kAcpiBytes = 0x20000;

// The boot page tables map this much, one to one; nothing is loaded above it.
inline constexpr uint64_t kIdentityMapBytes = uint64_t{4} << 30;

}  // namespace skiff::firmware
