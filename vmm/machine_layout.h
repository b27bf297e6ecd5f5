// SPDX-License-Identifier: GPL-2.0-or-later
// The guest-physical address map of the machine, and its interrupt numbers.
//
// RAM fills [0, kLowRamEnd) and goes on at 4 GiB. Everything the machine has besides lies between,
// except the 64-bit PCI window, which begins after the end of RAM. Thread: any; constants and pure
// functions.
#pragma once

#include <cstdint>

namespace skiff::vmm {

inline constexpr uint64_t kKiB = uint64_t{1} << 10;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

inline constexpr uint64_t kLowRamEnd = 0xC000'0000;
inline constexpr uint64_t kHighRamBase = 0x1'0000'0000;

inline constexpr uint64_t kPciMmio32Base = 0xC000'0000;
inline constexpr uint64_t kPciMmio32SizeBytes = 0x2000'0000;  // Up to 0xDFFF'FFFF.
inline constexpr uint64_t kEcamBase = 0xE000'0000;
inline constexpr uint64_t kEcamSizeBytes = 256 * kMiB;  // 256 buses.
inline constexpr uint64_t kVirtioMmioBase = 0xFEB0'0000;
inline constexpr uint64_t kVirtioMmioSlotBytes = 0x1000;
inline constexpr uint32_t kVirtioMmioSlots = 32;
inline constexpr uint64_t kIoApicBase = 0xFEC0'0000;
inline constexpr uint64_t kLocalApicBase = 0xFEE0'0000;
// Pages that KVM on VMX needs while the guest is in real mode; the guest is told they are reserved.
inline constexpr uint64_t kKvmIdentityMapBase = 0xFFFB'C000;  // One page.
inline constexpr uint64_t kKvmTssBase = 0xFFFB'D000;          // Three pages.
inline constexpr uint64_t kKvmReservedSizeBytes = 0x4000;     // Both together.

// IOAPIC pins and GSIs are the same number, except that ISA IRQ 0 (the PIT) arrives at pin 2, as on
// every PC: the MADT says so with an interrupt source override.
inline constexpr uint32_t kIoApicPins = 24;
inline constexpr uint32_t kTimerIoApicPin = 2;
inline constexpr uint32_t kFirstMsiGsi = kIoApicPins;

// xAPIC destinations are 8 bits wide and 255 is the broadcast; beyond, KVM's full in-kernel
// interrupt controller cannot address an IOAPIC interrupt.
inline constexpr uint32_t kMaxCpus = 255;

constexpr uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

constexpr uint64_t low_ram_bytes(uint64_t ram_bytes) {
  return ram_bytes < kLowRamEnd ? ram_bytes : kLowRamEnd;
}
constexpr uint64_t high_ram_bytes(uint64_t ram_bytes) {
  return ram_bytes - low_ram_bytes(ram_bytes);
}

struct PciWindow {
  uint64_t base = 0;
  uint64_t size_bytes = 0;  // 0: no room below the end of the guest's physical addresses.
};
// The 64-bit PCI window: from the end of RAM, rounded up to 1 GiB, at most 64 GiB, below
// 2^physical_address_bits.
constexpr PciWindow pci_mmio64_window(uint64_t ram_bytes, uint32_t physical_address_bits) {
  const uint64_t base = round_up(kHighRamBase + high_ram_bytes(ram_bytes), kGiB);
  const uint64_t end = uint64_t{1} << physical_address_bits;
  if (base >= end) return {};
  const uint64_t room = end - base;
  return {base, room < 64 * kGiB ? room : 64 * kGiB};
}

}  // namespace skiff::vmm
