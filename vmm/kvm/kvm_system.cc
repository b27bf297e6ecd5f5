// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/kvm_system.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <spdlog/fmt/fmt.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/ioctl.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

struct Wanted {
  uint32_t number;
  const char* name;
  bool required;
  const char* use;
};

constexpr Wanted kWanted[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", true, "guest RAM"},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", true, "PIC, IOAPIC and local APICs in the kernel"},
    {KVM_CAP_PIT2, "KVM_CAP_PIT2", true, "the interval timer"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR", true, "real mode on VMX"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR", true, "real mode on VMX"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID", true, "the processor's features"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE", true, "starting further vCPUs"},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING", true, "message-signalled interrupts"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD", true, "interrupts without a system call of the vCPU"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", true, "doorbells without an exit to Skiff"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", true, "stopping a vCPU"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS", true, "reset"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE", true, "reset"},
    {KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API", true, "32-bit APIC IDs"},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI", false, "single messages"},
    {KVM_CAP_IOEVENTFD_ANY_LENGTH, "KVM_CAP_IOEVENTFD_ANY_LENGTH", false, "faster doorbells"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER", false, "the guest's timers"},
    {KVM_CAP_BINARY_STATS_FD, "KVM_CAP_BINARY_STATS_FD", false, "counting exits by kind"},
};

std::string read_cpuinfo() {
  std::ifstream file("/proc/cpuinfo");
  std::string text;
  // The first processor's block is enough.
  for (std::string line; std::getline(file, line) && !line.empty();) text += line + "\n";
  return text;
}

Error open_error(int os_error, const std::string& path) {
  const std::string what =
      fmt::format("Opening {}: {}", path, std::generic_category().message(os_error));
  switch (os_error) {
    case EACCES:
    case EPERM:
      return {ErrorKind::kPermission,
              what + "; join the group kvm (sudo usermod -aG kvm $USER, then log in again)",
              os_error};
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return {ErrorKind::kNotFound, what + "; " + missing_kvm_advice(read_cpuinfo()), os_error};
    case EBUSY:
      return {ErrorKind::kBusy, what + "; another hypervisor holds the processor, stop it first",
              os_error};
    default:
      return {ErrorKind::kIo, what, os_error};
  }
}

Result<CpuidTable> read_supported_cpuid(int fd) {
  for (uint32_t capacity = 128;; capacity *= 2) {
    CpuidBuffer buffer(capacity);
    if (kvm_ioctl(fd, kGetSupportedCpuid, buffer.get()) == 0) return buffer.table();
    if (errno != E2BIG || capacity > 4096)
      return Error::from_errno(errno, "Reading the CPU features that KVM supports");
  }
}

bool has_flag(std::string_view cpuinfo, std::string_view flag) {
  const size_t flags = cpuinfo.find("\nflags");
  if (flags == std::string_view::npos) return false;
  const std::string line =
      std::string(cpuinfo.substr(flags + 1, cpuinfo.find('\n', flags + 1) - flags - 1)) + " ";
  return line.find(fmt::format(" {} ", flag)) != std::string::npos;
}

}  // namespace

std::string missing_kvm_advice(std::string_view cpuinfo) {
  const bool vmx = has_flag(cpuinfo, "vmx");
  const bool svm = has_flag(cpuinfo, "svm");
  if (vmx || svm)
    return fmt::format(
        "load the module (sudo modprobe {}), and if that fails switch {} on in the "
        "BIOS setup",
        vmx ? "kvm_intel" : "kvm_amd", vmx ? "VT-x" : "SVM");
  if (has_flag(cpuinfo, "hypervisor"))
    return "this machine is itself a guest without nested virtualisation: have it switched on, "
           "then load kvm_intel or kvm_amd";
  return "the processor shows neither vmx nor svm: switch VT-x or SVM on in the BIOS setup, then "
         "load kvm_intel or kvm_amd";
}

Result<KvmSystem> KvmSystem::open(const std::string& path) {
  loop::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return open_error(errno, path);
  KvmSystem system(std::move(fd));
  if (auto examined = system.examine(); !examined)
    return examined.error().with_context("Using", path);
  return system;
}

Result<void> KvmSystem::examine() {
  const int version = ::ioctl(fd_.get(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION)
    return Error(ErrorKind::kUnsupported,
                 version < 0 ? std::string("Not a KVM device")
                             : fmt::format("KVM speaks API version {}, Skiff needs {}", version,
                                           KVM_API_VERSION));
  std::string missing;
  for (const Wanted& wanted : kWanted) {
    const int64_t value = check_extension(wanted.number);
    capabilities_.push_back({wanted.name, value, wanted.required, wanted.use});
    if (wanted.required && value == 0)
      missing += fmt::format("{}{} ({})", missing.empty() ? "" : ", ", wanted.name, wanted.use);
  }
  if (!missing.empty())
    return Error(ErrorKind::kUnsupported,
                 fmt::format("KVM lacks {}; Skiff needs Linux 5.10 or later", missing));
  const int run_area = ::ioctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (run_area < 0) return Error::from_errno(errno, "Asking KVM for the size of a vCPU");
  run_area_bytes_ = static_cast<uint64_t>(run_area);
  auto cpuid = read_supported_cpuid(fd_.get());
  if (!cpuid) return cpuid.error();
  supported_cpuid_ = *std::move(cpuid);
  return {};
}

int64_t KvmSystem::check_extension(uint32_t capability) const {
  const int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability));
  return std::max(value, 0);
}

bool KvmSystem::has_tsc_deadline_timer() const {
  return check_extension(KVM_CAP_TSC_DEADLINE_TIMER) != 0;
}

uint32_t KvmSystem::max_cpus() const {
  return static_cast<uint32_t>(
      std::max<int64_t>(check_extension(KVM_CAP_MAX_VCPUS), check_extension(KVM_CAP_NR_VCPUS)));
}

}  // namespace skiff::vmm
