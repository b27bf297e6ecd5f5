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

// What the probe guest showed.
struct HostProbe {
  std::string module;         // "kvm_amd", ...
  double kernel_turn_ns = 0;  // One turn of a loop of two instructions, in CPL 0 and CPL 3.
  double user_turn_ns = 0;
  bool kernel_complete = false;  // It got through every instruction.
  bool user_complete = false;
  std::string failure;  // Why the one in CPL 3 did not.
};
// Judges kernel code by comparison with user code, so that a slow host is not taken for an emulated
// one.
HostFinding judge_host(const HostProbe& probe);

// Opens `kvm_path`, checks the capabilities and runs a probe guest in CPL 0 and in CPL 3.
HostFinding examine_host(const std::string& kvm_path = "/dev/kvm");

// What `skiff doctor` prints; with --quiet only the exit status counts.
std::string doctor_text(const HostFinding& finding);
// Its exit status: 0 full speed, 2 kernel code emulated, 3 unusable.
int doctor_exit_status(const HostFinding& finding);
// One line for a machine that died of an emulation failure.
std::string emulation_failure_hint();

}  // namespace skiff::vmm
