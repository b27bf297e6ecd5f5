// SPDX-License-Identifier: GPL-2.0-or-later
// What people get to read when a vCPU cannot go on.
//
// Thread: the vCPU's. Ownership: borrows everything.
#pragma once

#include <linux/kvm.h>

#include <string>

#include "vmm/kvm/vcpu.h"

namespace skiff::vmm {

// Several lines: the reason, the registers, the bytes at RIP. Says what it could not read.
std::string describe_vcpu(int vcpu_fd, const VcpuExit& exit, const kvm_run& run, const Vm& vm);
// One line, without registers.
std::string describe_exit(const VcpuExit& exit, const kvm_run& run);

}  // namespace skiff::vmm
