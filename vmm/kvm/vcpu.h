// SPDX-License-Identifier: GPL-2.0-or-later
// Vcpu: one virtual CPU: its descriptor, its registers and one KVM_RUN at a time.
//
// Thread: created anywhere; afterwards used by its VcpuThread only, except request_exit(), which
// any thread may call. Ownership: owns the descriptor and the shared run area; the Vm outlives it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/vm.h"

struct kvm_run;

namespace skiff::vmm {

enum class VcpuMode : uint8_t {
  kReset,  // As after power-on: real mode at the reset vector; the other members mean nothing.
  kProtected32,  // Paging off, flat segments: PVH, multiboot.
  kLong64,       // Paging by cr3, flat segments, CPL 0: the Linux 64-bit protocol.
  kLong64User,   // The same in CPL 3: payload guests; interrupts need a TSS and an IDT.
};

struct DescriptorTable {
  uint64_t base = 0;
  uint16_t limit = 0;
};

// Registers at the start of a vCPU. Flat code is selector 0x10 and flat data 0x18, in CPL 3 0x2b
// and 0x23; the TSS is 0x20, in CPL 3 0x30. A GDT, if there is one, should agree.
struct VcpuBootState {
  VcpuMode mode = VcpuMode::kReset;
  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rax = 0;
  uint64_t rbx = 0;
  uint64_t rcx = 0;
  uint64_t rdx = 0;
  uint64_t rsi = 0;
  uint64_t rdi = 0;
  uint64_t cr3 = 0;
  DescriptorTable gdt;
  DescriptorTable idt;
  uint64_t tss_base = 0;
  uint32_t tss_limit = 0x67;
};

// Why KVM_RUN returned.
enum class VcpuExitKind : uint8_t {
  kInterrupted,  // A signal or request_exit(): nothing to do for the guest.
  kPio,
  kMmio,
  kHalt,  // Only without an interrupt controller in the kernel.
  kIrqWindow,
  kShutdown,  // Triple fault.
  kSystemEvent,
  kFailEntry,      // The hardware refused the guest's state.
  kInternalError,  // KVM could not go on, most often an instruction it cannot emulate.
  kOther,
};
inline constexpr size_t kVcpuExitKinds = 10;

struct VcpuExit {
  VcpuExitKind kind = VcpuExitKind::kOther;
  bool is_write = false;
  uint64_t address = 0;     // Port or guest-physical address.
  uint32_t size_bytes = 0;  // Of one access.
  uint32_t count = 1;       // Accesses to one port by a string instruction.
  // The bytes, in the run area: size_bytes * count. A read is answered by filling them before the
  // next run().
  std::span<uint8_t> data;
  uint32_t reason = 0;            // KVM_EXIT_*.
  bool emulation_failed = false;  // kInternalError: KVM met an instruction it cannot emulate.
  uint64_t detail = 0;            // Suberror, hardware reason or event type.
};

class Vcpu {
 public:
  // Makes the vCPU and maps its run area; nothing is set up yet.
  static loop::Result<std::unique_ptr<Vcpu>> create(Vm& vm, uint32_t apic_id);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  uint32_t apic_id() const { return apic_id_; }

  // Once, before anything else: CPUID.
  loop::Result<void> set_cpuid(const CpuidTable& table);
  // To the state after power-on, then `boot`: registers, MSRs, FPU, local APIC. Runs when run() is
  // called. No access may be pending: after run() has answered kPio or kMmio, run once more with an
  // exit requested.
  loop::Result<void> start_at(const VcpuBootState& boot);
  // To the state after power-on, waiting for INIT and SIPI: every vCPU but the first.
  loop::Result<void> wait_for_sipi();

  // Enters the guest until something happens. Only an ioctl failure that has no VcpuExit is an
  // Error.
  loop::Result<VcpuExit> run();
  // Any thread: run() returns, or will return at once, with kInterrupted. A thread that is already
  // inside needs a signal as well.
  void request_exit();  // May be called in a signal handler too.
  // What was made known before a request that this clears is seen afterwards. Cheap when there is
  // none.
  void clear_exit_request();

  // Registers, the bytes at RIP and what KVM said, for people. Never fails: says what it could not
  // read.
  std::string describe(const VcpuExit& exit) const;

  struct Registers {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rip, rflags, cr2, cr3;
    uint16_t cs;
  };
  loop::Result<Registers> registers() const;

  // How often it was started: tells whether it was since it failed.
  uint32_t starts() const { return starts_; }

  // A descriptor of KVM's statistics on this vCPU (kvm_statistics.h), to be read on any thread;
  // invalid where the kernel has none.
  loop::UniqueFd open_statistics() const;

 private:
  Vcpu(Vm& vm, uint32_t apic_id, loop::UniqueFd fd);
  loop::Result<void> remember_power_on_state();
  loop::Result<void> power_on();
  loop::Result<void> set_msrs();
  loop::Result<void> set_mp_state(uint32_t state);
  VcpuExit decode_exit();

  struct PowerOnState;
  Vm& vm_;
  uint32_t apic_id_;
  loop::UniqueFd fd_;
  kvm_run* run_ = nullptr;
  uint32_t starts_ = 0;
  std::unique_ptr<PowerOnState> power_on_;
};

}  // namespace skiff::vmm
