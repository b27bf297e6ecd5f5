// SPDX-License-Identifier: GPL-2.0-or-later
// The doctor: finds out what guests this host can run, and says it in plain words.
//
// Thread: any; examine_host() takes up to 20 ms. Ownership: value types.
#pragma once

#include <string>
#include <vector>

namespace skiff::vmm {

enum class HostKind {
  kFullSpeed,       // Guest kernels run at the processor's speed.
  kKernelEmulated,  // User code does, kernel code is emulated: no stock kernel boots.
  kUnusable,        // No KVM, no permission, or a KVM that lacks what the machine needs.
};

struct HostFinding {
  HostKind kind = HostKind::kUnusable;
  std::vector<std::string> lines;  // What was found, then what to do.
};

// Opens `kvm_path`, checks the capabilities and runs a probe guest in CPL 0 and in CPL 3.
HostFinding examine_host(const std::string& kvm_path = "/dev/kvm");

// What `skiff doctor` prints.
std::string doctor_text(const HostFinding& finding);
// Its exit status: 0 full speed, 2 kernel code emulated, 3 unusable.
int doctor_exit_status(const HostFinding& finding);
// One line for a machine that died of an emulation failure.
std::string emulation_failure_hint();

}  // namespace skiff::vmm
