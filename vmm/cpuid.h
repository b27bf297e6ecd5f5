// SPDX-License-Identifier: GPL-2.0-or-later
// What the guest's CPUID instruction answers: the host's supported features, less the masked ones,
// with the topology that was asked for.
//
// Thread: any; pure functions over value types. Sources: Intel SDM vol. 2A CPUID, AMD APM vol. 3
// appendix E, Linux Documentation/virt/kvm/x86/cpuid.rst.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loop/result.h"

namespace skiff::vmm {

struct CpuidEntry {
  uint32_t function = 0;
  uint32_t index = 0;
  bool index_matters = false;  // ECX selects a sub-leaf.
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  bool operator==(const CpuidEntry&) const = default;
};
using CpuidTable = std::vector<CpuidEntry>;

// How `cpus` vCPUs are arranged. cpus == sockets * cores * threads, all at least 1.
struct CpuTopology {
  uint32_t cpus = 1;
  uint32_t sockets = 1;
  uint32_t cores = 1;    // Per socket.
  uint32_t threads = 1;  // Per core.
};

// 0 in `wanted` means "not said": what was not said is worked out, one socket and one thread per
// core where nothing else follows. kInvalidArgument when the product is not `cpus`, or `cpus` is
// not 1 to kMaxCpus.
loop::Result<CpuTopology> make_topology(const CpuTopology& wanted);

// The APIC ID of vCPU `index`: thread, core and socket numbers in bit fields, each wide enough for
// its count, so that IDs have gaps where a count is no power of two.
uint32_t apic_id_of(const CpuTopology& topology, uint32_t index);
// False when the topology's gaps push an APIC ID beyond 254, which xAPIC hardware cannot address.
bool apic_ids_fit(const CpuTopology& topology);

enum class CpuidRegister : uint8_t { kEax, kEbx, kEcx, kEdx };

// One feature that can be masked, named as /proc/cpuinfo names it ("avx512f").
struct CpuFeature {
  std::string_view name;
  uint32_t function;
  uint32_t index;
  CpuidRegister reg;
  uint8_t bit;
  std::string_view needs = {};  // The feature without which it cannot be used: masked with it.
};
std::span<const CpuFeature> cpu_features();
// Null when there is no such feature.
const CpuFeature* find_cpu_feature(std::string_view name);
// "avx512f:avx2" to features. kInvalidArgument names the unknown one and the names nearest to it.
loop::Result<std::vector<const CpuFeature*>> parse_feature_mask(std::string_view mask);
// Features of `table` as /proc/cpuinfo would name them.
std::vector<std::string_view> feature_names(const CpuidTable& table);

struct CpuidOptions {
  CpuTopology topology;
  std::vector<const CpuFeature*> masked;
  bool tsc_deadline_timer = false;  // KVM_CAP_TSC_DEADLINE_TIMER.
};

// The register of `entry` that holds `feature`'s bit.
uint32_t& cpuid_register(CpuidEntry& entry, CpuidRegister reg);

// The table for vCPU `index`, made from KVM_GET_SUPPORTED_CPUID's answer.
CpuidTable make_cpuid(const CpuidTable& supported, const CpuidOptions& options, uint32_t index);

// Physical address width from leaf 0x80000008, 36 if it is not there.
uint32_t physical_address_bits(const CpuidTable& table);
// "GenuineIntel", "AuthenticAMD", ... from leaf 0.
std::string vendor_name(const CpuidTable& table);

}  // namespace skiff::vmm
