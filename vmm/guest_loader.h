// SPDX-License-Identifier: GPL-2.0-or-later
// From the configuration to a guest in memory: kernel, initrd, command line, ACPI tables, and how
// the vCPUs begin.
//
// Thread: any, while no vCPU runs. Reads files, so it blocks.
#pragma once

#include <string>

#include "devices/core/guest_memory.h"
#include "firmware/acpi/tables.h"
#include "loop/result.h"
#include "vmm/config/machine_config.h"
#include "vmm/cpuid.h"
#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

// Puts everything into `memory` and says how the boot vCPU starts. Errors name the file.
loop::Result<VcpuBootState> load_guest_software(const MachineConfig& config,
                                                const firmware::AcpiConfig& acpi,
                                                const devices::GuestMemory& memory);

// The command line that the kernel gets: the user's, or ours when there is none, and what our own
// init needs.
std::string guest_command_line(const MachineConfig& config);

CpuTopology topology_of(const CpuConfig& cpus);
loop::Result<CpuidOptions> cpuid_options(const CpuConfig& cpus, const CpuTopology& topology);

}  // namespace skiff::vmm
