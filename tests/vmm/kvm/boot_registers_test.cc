// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/boot_registers.h"

#include <gtest/gtest.h>

#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {
namespace {

struct Registers {
  kvm_sregs sregs{};
  kvm_regs regs{};
};

Registers fill(const VcpuBootState& boot) {
  Registers result;
  fill_boot_registers(boot, result.sregs, result.regs);
  return result;
}

TEST(BootRegisters, LongModeHasPagingAndFlatCodeInCpl0) {
  VcpuBootState boot;
  boot.mode = VcpuMode::kLong64;
  boot.rip = 0x1000200;
  boot.rsi = 0x7000;
  boot.cr3 = 0x9000;
  boot.gdt = {.base = 0x1000, .limit = 0x2f};
  const Registers got = fill(boot);
  EXPECT_EQ(got.regs.rip, 0x1000200u);
  EXPECT_EQ(got.regs.rsi, 0x7000u);
  EXPECT_EQ(got.regs.rflags, 2u);
  EXPECT_EQ(got.sregs.cr3, 0x9000u);
  EXPECT_EQ(got.sregs.cr0 & 0x8000'0001, 0x8000'0001u);  // PG and PE.
  EXPECT_EQ(got.sregs.cr0 & 0x6000'0000, 0u);            // Caches on.
  EXPECT_EQ(got.sregs.efer & 0x500, 0x500u);             // LME and LMA.
  EXPECT_EQ(got.sregs.cs.selector, 0x10);
  EXPECT_EQ(got.sregs.cs.l, 1);
  EXPECT_EQ(got.sregs.cs.db, 0);
  EXPECT_EQ(got.sregs.ss.selector, 0x18);
  EXPECT_EQ(got.sregs.ss.dpl, 0);
  EXPECT_EQ(got.sregs.gdt.base, 0x1000u);
  EXPECT_EQ(got.sregs.gdt.limit, 0x2f);
}

TEST(BootRegisters, UserModeHasPrivilegeLevel3Everywhere) {
  VcpuBootState boot;
  boot.mode = VcpuMode::kLong64User;
  boot.tss_base = 0x5000;
  const Registers got = fill(boot);
  EXPECT_EQ(got.sregs.cs.selector & 3, 3);
  EXPECT_EQ(got.sregs.cs.dpl, 3);
  EXPECT_EQ(got.sregs.ss.dpl, 3);
  EXPECT_EQ(got.sregs.tr.base, 0x5000u);
  EXPECT_EQ(got.regs.rflags, 0x3002u);  // Ports are allowed.
}

TEST(BootRegisters, ProtectedModeHasNoPagingAndFlat32BitSegments) {
  VcpuBootState boot;
  boot.mode = VcpuMode::kProtected32;
  boot.rip = 0x100000;
  boot.rbx = 0x2000;
  const Registers got = fill(boot);
  EXPECT_EQ(got.sregs.cr0 & 0x8000'0001, 1u);
  EXPECT_EQ(got.sregs.cr4, 0u);
  EXPECT_EQ(got.sregs.efer, 0u);
  EXPECT_EQ(got.sregs.cs.db, 1);
  EXPECT_EQ(got.sregs.cs.l, 0);
  EXPECT_EQ(got.sregs.cs.limit, 0xffff'ffffu);
  EXPECT_EQ(got.regs.rbx, 0x2000u);
}

TEST(BootRegisters, ResetLeavesTheSegmentsAsKvmMadeThem) {
  Registers got;
  got.sregs.cs.base = 0xffff'0000;
  got.sregs.cs.selector = 0xf000;
  fill_boot_registers({.mode = VcpuMode::kReset, .rip = 0x1234}, got.sregs, got.regs);
  EXPECT_EQ(got.sregs.cs.base, 0xffff'0000u);
  EXPECT_EQ(got.sregs.cs.selector, 0xf000);
  EXPECT_EQ(got.regs.rip, 0xfff0u);
}

}  // namespace
}  // namespace skiff::vmm
