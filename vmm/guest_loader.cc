// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/guest_loader.h"

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/acpi/tables.h"
#include "firmware/boot.h"
#include "firmware/guest_init/guest_init.h"
#include "firmware/guest_init/protocol.h"
#include "firmware/memory_map.h"
#include "loop/file.h"
#include "loop/result.h"
#include "vmm/config/machine_config.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/machine_layout.h"

namespace skiff::vmm {
namespace {

using devices::GuestAddress;
using loop::Result;

bool uses_our_init(const MachineConfig& config) { return config.shell || !config.exec.empty(); }

std::vector<firmware::E820Entry> memory_map(const devices::GuestMemory& memory) {
  const std::array reserved = {
      firmware::MemoryRange{GuestAddress{kEcamBase}, kEcamSizeBytes},
      firmware::MemoryRange{GuestAddress{kKvmIdentityMapBase}, kKvmReservedSizeBytes},
  };
  return firmware::make_memory_map(memory, reserved);
}

VcpuBootState to_vcpu_state(const firmware::BootState& boot) {
  VcpuBootState state;
  state.mode =
      boot.mode == firmware::BootState::Mode::kLong64 ? VcpuMode::kLong64 : VcpuMode::kProtected32;
  state.rip = boot.rip;
  state.rsp = boot.rsp;
  state.rax = boot.rax;
  state.rbx = boot.rbx;
  state.rsi = boot.rsi;
  state.cr3 = boot.cr3;
  state.gdt = {boot.gdt.value, boot.gdt_limit_bytes};
  return state;
}

}  // namespace

std::string guest_command_line(const MachineConfig& config) {
  std::string line = config.cmdline;
  // A reset through the keyboard controller is the quickest that every kernel knows, and a panic
  // that ends in one is noticed here.
  if (line.empty()) line = "console=ttyS0 reboot=k panic=-1";
  if (uses_our_init(config)) {
    if (config.cmdline.empty()) line += " quiet";
    line.append(" rdinit=").append(firmware::guest_protocol::kInitPath);
  }
  return line;
}

Result<VcpuBootState> load_guest_software(const MachineConfig& config,
                                          const firmware::AcpiConfig& acpi,
                                          const devices::GuestMemory& memory) {
  auto kernel = loop::MappedFile::open(config.kernel);
  if (!kernel) return kernel.error().with_context("Kernel");

  firmware::BootOptions options;
  options.kernel_name = config.kernel;
  options.command_line = guest_command_line(config);
  options.memory_map = memory_map(memory);

  Result<loop::MappedFile> initrd = loop::Error(loop::ErrorKind::kNotFound, "");
  if (!config.initrd.empty()) {
    initrd = loop::MappedFile::open(config.initrd);
    if (!initrd) return initrd.error().with_context("Initrd");
    options.initrd.push_back(initrd->bytes());
  }
  std::vector<std::byte> our_init;
  if (uses_our_init(config)) {
    our_init = firmware::guest_init_archive();
    options.initrd.emplace_back(our_init);
  }

  auto rsdp = firmware::write_acpi_tables(acpi, memory);
  if (!rsdp) return rsdp.error().with_context("ACPI tables");
  options.acpi_rsdp = *rsdp;

  auto boot = firmware::load_kernel(kernel->bytes(), options, memory);
  if (!boot) return boot.error().with_context("Kernel", config.kernel);
  return to_vcpu_state(*boot);
}

CpuTopology topology_of(const CpuConfig& cpus) {
  return {
      .cpus = cpus.count, .sockets = cpus.sockets, .cores = cpus.cores, .threads = cpus.threads};
}

Result<CpuidOptions> cpuid_options(const CpuConfig& cpus, const CpuTopology& topology) {
  CpuidOptions options;
  options.topology = topology;
  auto masked = parse_feature_mask(cpus.mask);
  if (!masked) return masked.error().with_context("cpus");
  options.masked = *std::move(masked);
  return options;
}

}  // namespace skiff::vmm
