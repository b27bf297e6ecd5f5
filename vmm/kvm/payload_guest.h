// SPDX-License-Identifier: GPL-2.0-or-later
// The surroundings of a small guest of our own in long mode: page tables, descriptor tables and an
// I/O permission bitmap, so that a few instructions can run in CPL 0 or CPL 3.
//
// The first and the fourth GiB are mapped one to one, readable, writable and executable in both,
// and CPL 3 may use every port. Vectors lead nowhere until they are set: a fault ends in a triple
// fault. Thread: any, before the vCPUs run. Ownership: borrows the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/guest_memory.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

// RAM below it belongs to the tables.
inline constexpr uint64_t kPayloadCodeBase = 0x10000;
// One page of stack for interrupts taken in CPL 3; they may not nest.
inline constexpr uint64_t kPayloadInterruptStackTop = 0xb000;

// False when the memory is smaller than 1 MiB.
bool write_payload_tables(const devices::GuestMemory& memory);
// An interrupt gate to `handler` in CPL 0.
bool set_payload_vector(const devices::GuestMemory& memory, uint8_t vector, uint64_t handler);
bool write_payload_code(const devices::GuestMemory& memory, std::span<const uint8_t> code,
                        uint64_t address = kPayloadCodeBase);

// A vCPU that starts at `rip`; `mode` is kLong64 or kLong64User.
VcpuBootState payload_boot_state(VcpuMode mode, uint64_t rip = kPayloadCodeBase,
                                 uint64_t rsp = 0x80000);

}  // namespace skiff::vmm
