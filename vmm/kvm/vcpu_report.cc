// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/vcpu_report.h"

#include <linux/kvm.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>

#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace skiff::vmm {
namespace {

constexpr size_t kInstructionBytes = 15;  // The longest there is.

const char* suberror_name(uint32_t suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      return "KVM cannot emulate an instruction";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      return "an exception while another was being delivered";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      return "the guest's memory failed while an event was being delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      return "an exit reason that KVM does not know";
    default:
      return "unknown";
  }
}

std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{}{:02x}", text.empty() ? "" : " ", byte);
  return text;
}

// KVM hands over the bytes that it failed on, when it has them.
std::span<const uint8_t> bytes_of_failed_emulation(const kvm_run& run) {
  const auto& failure = run.emulation_failure;
  if (run.exit_reason != KVM_EXIT_INTERNAL_ERROR ||
      failure.suberror != KVM_INTERNAL_ERROR_EMULATION || failure.ndata < 1 ||
      (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) == 0)
    return {};
  return {failure.insn_bytes, std::min<size_t>(failure.insn_size, sizeof(failure.insn_bytes))};
}

std::string instruction_text(int vcpu_fd, const kvm_regs& regs, const kvm_sregs& sregs,
                             const kvm_run& run, const Vm& vm) {
  if (const auto bytes = bytes_of_failed_emulation(run); !bytes.empty()) return hex(bytes);
  kvm_translation translation{};
  translation.linear_address = sregs.cs.l != 0 ? regs.rip : sregs.cs.base + regs.rip;
  if (kvm_ioctl(vcpu_fd, KVM_TRANSLATE, &translation) < 0 || translation.valid == 0)
    return fmt::format("unreadable (nothing mapped at {:#x})",
                       static_cast<uint64_t>(translation.linear_address));
  const uint64_t in_page = 4096 - translation.physical_address % 4096;
  std::array<uint8_t, kInstructionBytes> bytes{};
  const auto part = std::span(bytes).first(std::min<size_t>(bytes.size(), in_page));
  if (!vm.read_memory(translation.physical_address, std::as_writable_bytes(part)))
    return fmt::format("unreadable (no RAM at {:#x})",
                       static_cast<uint64_t>(translation.physical_address));
  return hex(part);
}

std::string segment_text(const char* name, const kvm_segment& segment) {
  return fmt::format("{}={:04x} base {:016x} limit {:08x}", name, uint16_t{segment.selector},
                     static_cast<uint64_t>(segment.base), uint32_t{segment.limit});
}

}  // namespace

std::string describe_exit(const VcpuExit& exit, const kvm_run& run) {
  switch (exit.kind) {
    case VcpuExitKind::kShutdown:
      return "triple fault";
    case VcpuExitKind::kInternalError:
      return fmt::format("KVM internal error {}: {}", exit.detail,
                         suberror_name(static_cast<uint32_t>(exit.detail)));
    case VcpuExitKind::kFailEntry:
      return fmt::format("KVM failed to enter the guest, hardware reason {:#x}", exit.detail);
    case VcpuExitKind::kSystemEvent:
      return fmt::format("KVM system event {}", exit.detail);
    case VcpuExitKind::kHalt:
      return "halted outside the kernel";
    default:
      return fmt::format("KVM exit reason {}", uint32_t{run.exit_reason});
  }
}

std::string describe_vcpu(int vcpu_fd, const VcpuExit& exit, const kvm_run& run, const Vm& vm) {
  std::string text = describe_exit(exit, run);
  kvm_regs regs{};
  kvm_sregs sregs{};
  if (kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0 || kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
    return text + fmt::format("\nRegisters unreadable: {}", std::generic_category().message(errno));
  if (exit.kind == VcpuExitKind::kShutdown && regs.rip == 0xfff0)
    text += "\nKVM on AMD processors has reset the registers; these are not those of the fault:";
  auto u64 = [](uint64_t value) { return fmt::format("{:016x}", value); };
  text += fmt::format("\nRAX={} RBX={} RCX={} RDX={}", u64(regs.rax), u64(regs.rbx), u64(regs.rcx),
                      u64(regs.rdx));
  text += fmt::format("\nRSI={} RDI={} RBP={} RSP={}", u64(regs.rsi), u64(regs.rdi), u64(regs.rbp),
                      u64(regs.rsp));
  text += fmt::format("\nR8 ={} R9 ={} R10={} R11={}", u64(regs.r8), u64(regs.r9), u64(regs.r10),
                      u64(regs.r11));
  text += fmt::format("\nR12={} R13={} R14={} R15={}", u64(regs.r12), u64(regs.r13), u64(regs.r14),
                      u64(regs.r15));
  text += fmt::format("\nRIP={} RFLAGS={:08x} CPL={}", u64(regs.rip),
                      static_cast<uint64_t>(regs.rflags), uint8_t{sregs.ss.dpl});
  text += fmt::format("\nCR0={:08x} CR2={} CR3={} CR4={:08x} EFER={:x}",
                      static_cast<uint64_t>(sregs.cr0), u64(sregs.cr2), u64(sregs.cr3),
                      static_cast<uint64_t>(sregs.cr4), static_cast<uint64_t>(sregs.efer));
  text += "\n" + segment_text("CS", sregs.cs) + "  " + segment_text("SS", sregs.ss);
  text += "\n" + segment_text("DS", sregs.ds) + "  " + segment_text("TR", sregs.tr);
  text += fmt::format("\nGDT={}:{:04x} IDT={}:{:04x}", u64(sregs.gdt.base),
                      uint16_t{sregs.gdt.limit}, u64(sregs.idt.base), uint16_t{sregs.idt.limit});
  text += "\nInstruction bytes: " + instruction_text(vcpu_fd, regs, sregs, run, vm);
  return text;
}

}  // namespace skiff::vmm
