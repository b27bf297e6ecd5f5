// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/machine_layout.h"

#include <gtest/gtest.h>

namespace skiff::vmm {
namespace {

TEST(MachineLayout, RamBeyond3GiBGoesOnAt4GiB) {
  EXPECT_EQ(low_ram_bytes(128 * kMiB), 128 * kMiB);
  EXPECT_EQ(high_ram_bytes(128 * kMiB), 0u);
  EXPECT_EQ(low_ram_bytes(3 * kGiB), 3 * kGiB);
  EXPECT_EQ(high_ram_bytes(3 * kGiB), 0u);
  EXPECT_EQ(low_ram_bytes(8 * kGiB), 3 * kGiB);
  EXPECT_EQ(high_ram_bytes(8 * kGiB), 5 * kGiB);
}

TEST(MachineLayout, PciWindowBeginsAfterRamOnAWholeGiB) {
  EXPECT_EQ(pci_mmio64_window(128 * kMiB, 48).base, 4 * kGiB);
  EXPECT_EQ(pci_mmio64_window(3 * kGiB + kMiB, 48).base, 5 * kGiB);
  EXPECT_EQ(pci_mmio64_window(8 * kGiB, 48).size_bytes, 64 * kGiB);
}

TEST(MachineLayout, PciWindowShrinksToWhatTheProcessorCanAddress) {
  EXPECT_EQ(pci_mmio64_window(8 * kGiB, 36).base, 9 * kGiB);
  EXPECT_EQ(pci_mmio64_window(8 * kGiB, 36).size_bytes, 55 * kGiB);
  EXPECT_EQ(pci_mmio64_window(63 * kGiB, 36).size_bytes, 0u);
}

TEST(MachineLayout, NothingOverlaps) {
  EXPECT_LE(kPciMmio32Base + kPciMmio32SizeBytes, kEcamBase);
  EXPECT_LE(kEcamBase + kEcamSizeBytes, kVirtioMmioBase);
  EXPECT_LE(kVirtioMmioBase + kVirtioMmioSlots * kVirtioMmioSlotBytes, kIoApicBase);
  EXPECT_LE(kIoApicBase, kLocalApicBase);
  EXPECT_EQ(kKvmIdentityMapBase + 0x1000, kKvmTssBase);
  EXPECT_LE(kKvmIdentityMapBase + kKvmReservedSizeBytes, kHighRamBase);
}

}  // namespace
}  // namespace skiff::vmm
