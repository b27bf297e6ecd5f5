// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/boot_registers.h"

#include <cstdint>

#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {
namespace {

// Intel SDM vol. 3A 2.5 and 2.2.1.
constexpr uint64_t kCr0ProtectionEnable = 1U << 0;
constexpr uint64_t kCr0MonitorCoprocessor = 1U << 1;
constexpr uint64_t kCr0ExtensionType = 1U << 4;
constexpr uint64_t kCr0NumericError = 1U << 5;
constexpr uint64_t kCr0WriteProtect = 1U << 16;
constexpr uint64_t kCr0Paging = 1U << 31;
constexpr uint64_t kCr4PhysicalAddressExtension = 1U << 5;
constexpr uint64_t kCr4FxSave = 1U << 9;
constexpr uint64_t kCr4SimdExceptions = 1U << 10;
constexpr uint64_t kEferLongModeEnable = 1U << 8;
constexpr uint64_t kEferLongModeActive = 1U << 10;
constexpr uint64_t kEferNoExecuteEnable = 1U << 11;

constexpr uint64_t kRflagsAfterReset = 2;  // Bit 1 is always set.
constexpr uint64_t kRflagsIoPrivilege3 = 0x3000;
constexpr uint64_t kResetVector = 0xfff0;  // In a code segment at 0xffff0000, as KVM leaves it.

constexpr uint8_t kTypeCodeReadAccessed = 0xb;
constexpr uint8_t kTypeDataWriteAccessed = 0x3;
constexpr uint8_t kTypeBusyTss = 0xb;

kvm_segment flat_segment(uint16_t selector, uint8_t type, bool long_code) {
  kvm_segment segment{};
  segment.limit = 0xffff'ffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.dpl = selector & 3;
  segment.db = long_code ? 0 : 1;
  segment.s = 1;
  segment.l = long_code ? 1 : 0;
  segment.g = 1;
  return segment;
}

void set_segments(const VcpuBootState& boot, kvm_sregs& sregs) {
  const bool user = boot.mode == VcpuMode::kLong64User;
  const bool long_code = boot.mode != VcpuMode::kProtected32;
  sregs.cs = flat_segment(user ? 0x2b : 0x10, kTypeCodeReadAccessed, long_code);
  const kvm_segment data = flat_segment(user ? 0x23 : 0x18, kTypeDataWriteAccessed, false);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.tr = kvm_segment{};
  sregs.tr.base = boot.tss_base;
  sregs.tr.limit = boot.tss_limit;
  sregs.tr.selector = user ? 0x30 : 0x20;
  sregs.tr.type = kTypeBusyTss;
  sregs.tr.present = 1;
  sregs.gdt.base = boot.gdt.base;
  sregs.gdt.limit = boot.gdt.limit;
  sregs.idt.base = boot.idt.base;
  sregs.idt.limit = boot.idt.limit;
}

}  // namespace

void fill_boot_registers(const VcpuBootState& boot, kvm_sregs& sregs, kvm_regs& regs) {
  regs.rflags = kRflagsAfterReset;
  if (boot.mode == VcpuMode::kReset) {
    regs.rip = kResetVector;
    return;
  }
  set_segments(boot, sregs);
  // The caches are on (CD and NW clear), unlike after power-on.
  sregs.cr0 = kCr0ProtectionEnable | kCr0ExtensionType | kCr0NumericError;
  sregs.cr3 = boot.cr3;
  if (boot.mode != VcpuMode::kProtected32) {
    sregs.cr0 |= kCr0Paging | kCr0WriteProtect | kCr0MonitorCoprocessor;
    sregs.cr4 |= kCr4PhysicalAddressExtension | kCr4FxSave | kCr4SimdExceptions;
    sregs.efer |= kEferLongModeEnable | kEferLongModeActive | kEferNoExecuteEnable;
  }
  // Where the TSS's I/O bitmap is not looked at for a busy TSS (QEMU's software emulation).
  if (boot.mode == VcpuMode::kLong64User) regs.rflags |= kRflagsIoPrivilege3;
  regs.rip = boot.rip;
  regs.rsp = boot.rsp;
  regs.rax = boot.rax;
  regs.rbx = boot.rbx;
  regs.rcx = boot.rcx;
  regs.rdx = boot.rdx;
  regs.rsi = boot.rsi;
  regs.rdi = boot.rdi;
}

}  // namespace skiff::vmm
