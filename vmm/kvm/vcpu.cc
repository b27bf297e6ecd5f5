// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/vcpu.h"

#include <linux/kvm.h>
#include <spdlog/fmt/fmt.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/boot_registers.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/vcpu_report.h"
#include "vmm/kvm/vm.h"

namespace skiff::vmm {

using loop::Error;
using loop::Result;

namespace {

// Local APIC registers (Intel SDM vol. 3A table 11-1) by their offset in the register page.
constexpr size_t kLapicLint0 = 0x350;
constexpr size_t kLapicLint1 = 0x360;
constexpr uint32_t kLvtDeliverNmi = 0x400;
constexpr uint32_t kLvtDeliverExtInt = 0x700;

constexpr uint32_t kMsrIndexes[] = {
    0x0000'0174,  // IA32_SYSENTER_CS
    0x0000'0175,  // IA32_SYSENTER_ESP
    0x0000'0176,  // IA32_SYSENTER_EIP
    0xC000'0081,  // STAR
    0xC000'0082,  // LSTAR
    0xC000'0083,  // CSTAR
    0xC000'0084,  // SFMASK
    0xC000'0102,  // KERNEL_GS_BASE
    0x4b56'4d00,  // KVM wall clock
    0x4b56'4d01,  // KVM system time
    0x4b56'4d02,  // KVM asynchronous page faults
    0x4b56'4d03,  // KVM steal time
    0x4b56'4d04,  // KVM end of interrupt
    0x0000'06e0,  // IA32_TSC_DEADLINE
};
constexpr uint32_t kMsrMiscEnable = 0x1a0;
constexpr uint32_t kMsrPat = 0x277;
constexpr uint32_t kMsrMtrrDefaultType = 0x2ff;
constexpr uint64_t kMiscEnableFastStrings = 1;
constexpr uint64_t kPatAfterReset = 0x0007'0406'0007'0406;
constexpr uint64_t kMtrrEnabledWriteBack = 0x806;

// Sets MSRs one after the other and goes on past those that this processor or KVM does not have:
// what is absent needs no reset.
void set_available_msrs(int fd, const std::vector<kvm_msr_entry>& values) {
  size_t done = 0;
  while (done < values.size()) {
    KvmArray<kvm_msr_entry> request(values.size() - done);
    std::copy(values.begin() + static_cast<std::ptrdiff_t>(done), values.end(), request.entries());
    const int set = kvm_ioctl(fd, kSetMsrs, request.header());
    done += static_cast<size_t>(std::max(set, 0)) + 1;
  }
}

}  // namespace

struct Vcpu::PowerOnState {
  kvm_sregs sregs{};
  kvm_lapic_state lapic{};
  kvm_vcpu_events events{};
  kvm_debugregs debug{};
  kvm_xcrs xcrs{};
};

Result<std::unique_ptr<Vcpu>> Vcpu::create(Vm& vm, uint32_t apic_id) {
  loop::UniqueFd fd(::ioctl(vm.fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(apic_id)));
  if (!fd)
    return Error::from_errno(errno, fmt::format("Creating the vCPU with APIC ID {}", apic_id));
  std::unique_ptr<Vcpu> vcpu(new Vcpu(vm, apic_id, std::move(fd)));
  void* run = ::mmap(nullptr, vm.system().run_area_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED,
                     vcpu->fd_.get(), 0);
  if (run == MAP_FAILED) return Error::from_errno(errno, "Mapping a vCPU's run area");
  vcpu->run_ = static_cast<kvm_run*>(run);
  SKIFF_RETURN_IF_ERROR(vcpu->remember_power_on_state());
  return vcpu;
}

Vcpu::Vcpu(Vm& vm, uint32_t apic_id, loop::UniqueFd fd)
    : vm_(vm), apic_id_(apic_id), fd_(std::move(fd)) {}

Vcpu::~Vcpu() {
  if (run_ != nullptr) ::munmap(run_, vm_.system().run_area_bytes());
}

Result<void> Vcpu::set_cpuid(const CpuidTable& table) {
  CpuidBuffer buffer(table);
  if (kvm_ioctl(fd_.get(), kSetCpuid2, buffer.get()) < 0)
    return Error::from_errno(errno, "Setting the vCPU's CPUID");
  return {};
}

Result<void> Vcpu::remember_power_on_state() {
  power_on_ = std::make_unique<PowerOnState>();
  if (kvm_ioctl(fd_.get(), KVM_GET_SREGS, &power_on_->sregs) < 0 ||
      kvm_ioctl(fd_.get(), KVM_GET_LAPIC, &power_on_->lapic) < 0 ||
      kvm_ioctl(fd_.get(), KVM_GET_VCPU_EVENTS, &power_on_->events) < 0 ||
      kvm_ioctl(fd_.get(), KVM_GET_DEBUGREGS, &power_on_->debug) < 0 ||
      kvm_ioctl(fd_.get(), KVM_GET_XCRS, &power_on_->xcrs) < 0)
    return Error::from_errno(errno, "Reading a new vCPU's state");
  // The PIC's interrupts and NMIs come in here, as the firmware of a PC leaves it (Linux relies on
  // it in virtual wire mode).
  auto set_lvt = [this](size_t offset, uint32_t value) {
    std::memcpy(power_on_->lapic.regs + offset, &value, sizeof(value));
  };
  set_lvt(kLapicLint0, kLvtDeliverExtInt);
  set_lvt(kLapicLint1, kLvtDeliverNmi);
  return {};
}

Result<void> Vcpu::set_msrs() {
  std::vector<kvm_msr_entry> values;
  values.push_back({.index = kMsrMiscEnable, .data = kMiscEnableFastStrings});
  values.push_back({.index = kMsrPat, .data = kPatAfterReset});
  // All memory write-back: the guest's kernel finds no MTRR that would make it slow.
  values.push_back({.index = kMsrMtrrDefaultType, .data = kMtrrEnabledWriteBack});
  if (starts_ > 0)
    for (const uint32_t index : kMsrIndexes) values.push_back({.index = index, .data = 0});
  set_available_msrs(fd_.get(), values);
  return {};
}

// The TSC goes on counting: resetting it on one vCPU after the other would leave them apart.
Result<void> Vcpu::power_on() {
  kvm_sregs sregs = power_on_->sregs;
  if (starts_ > 0) {
    // First of all, for it switches the local APIC back from x2APIC mode.
    if (kvm_ioctl(fd_.get(), KVM_SET_SREGS, &sregs) < 0)
      return Error::from_errno(errno, "Resetting a vCPU's system registers");
    // All zero is every component in its initial state, but for the two control words.
    const int64_t size = std::max<int64_t>(vm_.system().check_extension(KVM_CAP_XSAVE2),
                                           static_cast<int64_t>(sizeof(KvmXsave)));
    std::vector<uint32_t> xsave(static_cast<size_t>(size) / sizeof(uint32_t));
    xsave[0] = 0x37f;   // FCW.
    xsave[6] = 0x1f80;  // MXCSR.
    if (kvm_ioctl(fd_.get(), kSetXsave, xsave.data()) < 0)
      return Error::from_errno(errno, "Resetting a vCPU's FPU");
    if (kvm_ioctl(fd_.get(), KVM_SET_XCRS, &power_on_->xcrs) < 0)
      return Error::from_errno(errno, "Resetting a vCPU's XCR0");
    if (kvm_ioctl(fd_.get(), KVM_SET_DEBUGREGS, &power_on_->debug) < 0)
      return Error::from_errno(errno, "Resetting a vCPU's debug registers");
    if (kvm_ioctl(fd_.get(), KVM_SET_VCPU_EVENTS, &power_on_->events) < 0)
      return Error::from_errno(errno, "Resetting a vCPU's pending events");
  }
  if (kvm_ioctl(fd_.get(), KVM_SET_LAPIC, &power_on_->lapic) < 0)
    return Error::from_errno(errno, "Resetting a vCPU's local APIC");
  return set_msrs();
}

Result<void> Vcpu::set_mp_state(uint32_t state) {
  kvm_mp_state request{.mp_state = state};
  if (kvm_ioctl(fd_.get(), KVM_SET_MP_STATE, &request) < 0)
    return Error::from_errno(errno, "Setting whether a vCPU runs");
  return {};
}

Result<void> Vcpu::start_at(const VcpuBootState& boot) {
  SKIFF_RETURN_IF_ERROR(power_on());
  kvm_sregs sregs = power_on_->sregs;
  kvm_regs regs{};
  fill_boot_registers(boot, sregs, regs);
  if (kvm_ioctl(fd_.get(), KVM_SET_SREGS, &sregs) < 0)
    return Error::from_errno(errno, "Setting a vCPU's system registers");
  if (kvm_ioctl(fd_.get(), KVM_SET_REGS, &regs) < 0)
    return Error::from_errno(errno, "Setting a vCPU's registers");
  SKIFF_RETURN_IF_ERROR(set_mp_state(KVM_MP_STATE_RUNNABLE));
  ++starts_;
  return {};
}

Result<void> Vcpu::wait_for_sipi() {
  SKIFF_RETURN_IF_ERROR(power_on());
  SKIFF_RETURN_IF_ERROR(set_mp_state(KVM_MP_STATE_UNINITIALIZED));
  ++starts_;
  return {};
}

Result<VcpuExit> Vcpu::run() {
  if (::ioctl(fd_.get(), KVM_RUN, 0UL) == 0) return decode_exit();
  // EAGAIN: a vCPU that waited for its SIPI got it, or a signal; entering again is right for both.
  if (errno == EINTR || errno == EAGAIN) return VcpuExit{.kind = VcpuExitKind::kInterrupted};
  const int os_error = errno;
  return Error::from_errno(os_error, "Running the vCPU");
}

VcpuExit Vcpu::decode_exit() {
  VcpuExit exit{.reason = run_->exit_reason};
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      exit.kind = VcpuExitKind::kPio;
      exit.is_write = run_->io.direction == KVM_EXIT_IO_OUT;
      exit.address = run_->io.port;
      exit.size_bytes = run_->io.size;
      exit.count = run_->io.count;
      exit.data = {reinterpret_cast<uint8_t*>(run_) + run_->io.data_offset,
                   size_t{exit.size_bytes} * exit.count};
      break;
    case KVM_EXIT_MMIO:
      exit.kind = VcpuExitKind::kMmio;
      exit.is_write = run_->mmio.is_write != 0;
      exit.address = run_->mmio.phys_addr;
      exit.size_bytes = run_->mmio.len;
      exit.data = {run_->mmio.data, exit.size_bytes};
      break;
    case KVM_EXIT_INTR:
      exit.kind = VcpuExitKind::kInterrupted;
      break;
    case KVM_EXIT_HLT:
      exit.kind = VcpuExitKind::kHalt;
      break;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      exit.kind = VcpuExitKind::kIrqWindow;
      break;
    case KVM_EXIT_SHUTDOWN:
      exit.kind = VcpuExitKind::kShutdown;
      break;
    case KVM_EXIT_SYSTEM_EVENT:
      exit.kind = VcpuExitKind::kSystemEvent;
      exit.detail = run_->system_event.type;
      break;
    case KVM_EXIT_FAIL_ENTRY:
      exit.kind = VcpuExitKind::kFailEntry;
      exit.detail = run_->fail_entry.hardware_entry_failure_reason;
      break;
    case KVM_EXIT_INTERNAL_ERROR:
      exit.kind = VcpuExitKind::kInternalError;
      exit.detail = run_->internal.suberror;
      exit.emulation_failed = run_->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
      break;
    default:
      exit.kind = VcpuExitKind::kOther;
      break;
  }
  return exit;
}

void Vcpu::request_exit() {
  std::atomic_ref<uint8_t>(run_->immediate_exit).store(1, std::memory_order_release);
}

void Vcpu::clear_exit_request() {
  std::atomic_ref<uint8_t> requested(run_->immediate_exit);
  // A request that comes after this look stands, and ends the next run().
  if (requested.load(std::memory_order_relaxed) == 0) return;
  // An exchange, so that a request which it swallows has been read.
  requested.exchange(0, std::memory_order_acq_rel);
}

Result<Vcpu::Registers> Vcpu::registers() const {
  kvm_regs regs{};
  kvm_sregs sregs{};
  if (kvm_ioctl(fd_.get(), KVM_GET_REGS, &regs) < 0 ||
      kvm_ioctl(fd_.get(), KVM_GET_SREGS, &sregs) < 0)
    return Error::from_errno(errno, "Reading a vCPU's registers");
  return Registers{.rax = regs.rax,
                   .rbx = regs.rbx,
                   .rcx = regs.rcx,
                   .rdx = regs.rdx,
                   .rsi = regs.rsi,
                   .rdi = regs.rdi,
                   .rsp = regs.rsp,
                   .rip = regs.rip,
                   .rflags = regs.rflags,
                   .cr2 = sregs.cr2,
                   .cr3 = sregs.cr3,
                   .cs = sregs.cs.selector};
}

loop::UniqueFd Vcpu::open_statistics() const {
  return loop::UniqueFd(::ioctl(fd_.get(), KVM_GET_STATS_FD, 0UL));
}

std::string Vcpu::describe(const VcpuExit& exit) const {
  return describe_vcpu(fd_.get(), exit, *run_, vm_);
}

}  // namespace skiff::vmm
