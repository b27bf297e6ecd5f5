// SPDX-License-Identifier: GPL-2.0-or-later
// KvmSystem: /dev/kvm, opened, and found to be one that the machine can be built on.
//
// Thread: any; immutable once created. Ownership: owns the descriptor; outlives its Vms.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/cpuid.h"

namespace skiff::vmm {

// One row of what the machine wants from KVM.
struct KvmCapability {
  std::string name;   // "KVM_CAP_IRQCHIP".
  int64_t value = 0;  // What KVM_CHECK_EXTENSION answered; 0 is absent.
  bool required = false;
  std::string use;  // What the machine does with it.
};

class KvmSystem {
 public:
  // The message of an error names what to do: load kvm_intel or kvm_amd, switch virtualisation on
  // in the firmware, join the group kvm. Kinds: kNotFound, kPermission, kBusy, kUnsupported.
  static loop::Result<KvmSystem> open(const std::string& path = "/dev/kvm");

  int fd() const { return fd_.get(); }
  // KVM_CHECK_EXTENSION; 0 when absent.
  int64_t check_extension(uint32_t capability) const;
  const std::vector<KvmCapability>& capabilities() const { return capabilities_; }
  const CpuidTable& supported_cpuid() const { return supported_cpuid_; }
  uint32_t max_cpus() const;
  bool has_tsc_deadline_timer() const;
  uint64_t run_area_bytes() const { return run_area_bytes_; }

 private:
  explicit KvmSystem(loop::UniqueFd fd) : fd_(std::move(fd)) {}
  loop::Result<void> examine();

  loop::UniqueFd fd_;
  std::vector<KvmCapability> capabilities_;
  CpuidTable supported_cpuid_;
  uint64_t run_area_bytes_ = 0;
};

// What to do where there is no /dev/kvm, judged by the text of /proc/cpuinfo.
std::string missing_kvm_advice(std::string_view cpuinfo);

}  // namespace skiff::vmm
