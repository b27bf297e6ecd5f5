// SPDX-License-Identifier: GPL-2.0-or-later
// The memory map the guest is told (e820): which addresses are RAM and which it must leave alone.
//
// Thread: any; pure functions. Ownership: values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/core/guest_memory.h"

namespace skiff::firmware {

// The numbers are those of ACPI 6.5, 15 "System Address Map Interfaces"; boot_params, PVH and
// multiboot all use them.
enum class E820Type : uint32_t { kRam = 1, kReserved = 2, kAcpi = 3, kNvs = 4 };

struct E820Entry {
  devices::GuestAddress base;
  uint64_t size_bytes = 0;
  E820Type type = E820Type::kRam;
  bool operator==(const E820Entry&) const = default;
};

struct MemoryRange {
  devices::GuestAddress base;
  uint64_t size_bytes = 0;
};

// The regions of `memory` as RAM, without the BIOS area below 1 MiB and without `reserved`, which
// become reserved entries whether there is RAM behind them or not. The ECAM must be among
// `reserved`: Linux ignores it otherwise. Sorted by address, nothing overlaps, nothing is empty;
// reserved ranges that touch or overlap become one. A range that wraps ends at the top.
std::vector<E820Entry> make_memory_map(const devices::GuestMemory& memory,
                                       std::span<const MemoryRange> reserved);

}  // namespace skiff::firmware
