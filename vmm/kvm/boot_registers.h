// SPDX-License-Identifier: GPL-2.0-or-later
// From VcpuBootState to KVM's register structures.
//
// Thread: any; a pure function.
#pragma once

#include <linux/kvm.h>

#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

// Changes what `boot` asks for in `sregs` and `regs`, which hold the state after power-on and zero.
void fill_boot_registers(const VcpuBootState& boot, kvm_sregs& sregs, kvm_regs& regs);

}  // namespace skiff::vmm
