// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/cpuid.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/result.h"
#include "vmm/machine_layout.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint32_t kLeafTopology = 0xb;
constexpr uint32_t kLeafTopologyV2 = 0x1f;
constexpr uint32_t kLeafKvm = 0x4000'0000;
constexpr uint32_t kLeafKvmFeatures = 0x4000'0001;
constexpr uint32_t kLeafAmdFeatures = 0x8000'0001;
constexpr uint32_t kLeafAmdCaches = 0x8000'001d;
constexpr uint32_t kLeafAmdTopology = 0x8000'001e;
constexpr uint32_t kLeafAmdTopologyV2 = 0x8000'0026;

uint32_t bits_for(uint32_t count) { return static_cast<uint32_t>(std::bit_width(count - 1)); }

uint32_t set_field(uint32_t value, uint32_t shift, uint32_t width, uint32_t field) {
  const uint32_t mask = ((uint32_t{1} << width) - 1) << shift;
  return (value & ~mask) | (field << shift & mask);
}

void set_bit(uint32_t& value, uint32_t bit, bool on) {
  value = on ? value | uint32_t{1} << bit : value & ~(uint32_t{1} << bit);
}

// Makes one vCPU's table. Steps are members so that each stays short; make() gives their order.
class CpuidBuilder {
 public:
  CpuidBuilder(const CpuidTable& supported, const CpuidOptions& options, uint32_t index)
      : table_(supported),
        topology_(options.topology),
        options_(options),
        apic_id_(apic_id_of(options.topology, index)),
        vendor_(vendor_name(supported)) {}

  CpuidTable make() {
    add_kvm_leaf();
    fix_features();
    fix_caches();
    fix_extended_topology();
    fix_amd_topology();
    apply_mask();
    trim_xsave();
    std::ranges::sort(table_, [](const CpuidEntry& a, const CpuidEntry& b) {
      return a.function != b.function ? a.function < b.function : a.index < b.index;
    });
    return std::move(table_);
  }

 private:
  uint32_t thread_bits() const { return bits_for(topology_.threads); }
  uint32_t package_bits() const { return thread_bits() + bits_for(topology_.cores); }
  uint32_t threads_per_package() const { return topology_.cores * topology_.threads; }
  bool is_amd() const { return vendor_ == "AuthenticAMD" || vendor_ == "HygonGenuine"; }

  CpuidEntry* find(uint32_t function, uint32_t index = 0) {
    for (CpuidEntry& entry : table_)
      if (entry.function == function && entry.index == index) return &entry;
    return nullptr;
  }
  void erase(uint32_t function) {
    std::erase_if(table_,
                  [function](const CpuidEntry& entry) { return entry.function == function; });
  }
  bool has_feature(std::string_view name) {
    const CpuFeature* const feature = find_cpu_feature(name);
    CpuidEntry* const entry = find(feature->function, feature->index);
    return entry != nullptr && (cpuid_register(*entry, feature->reg) >> feature->bit & 1) != 0;
  }

  void add_kvm_leaf();
  void fix_features();
  void fix_caches();
  void fix_cache_sharing(CpuidEntry& entry) const;
  void synthesise_amd_caches();
  void add_topology_leaf(uint32_t function);
  void fix_extended_topology();
  void fix_amd_topology();
  void apply_mask();
  void trim_xsave();

  CpuidTable table_;
  const CpuTopology& topology_;
  const CpuidOptions& options_;
  const uint32_t apic_id_;
  const std::string vendor_;
};

// Documentation/virt/kvm/x86/cpuid.rst: "KVMKVMKVM\0\0\0" in EBX, ECX, EDX.
void CpuidBuilder::add_kvm_leaf() {
  if (find(kLeafKvm) != nullptr) return;
  table_.push_back({.function = kLeafKvm,
                    .eax = kLeafKvmFeatures,
                    .ebx = 0x4b4d'564b,
                    .ecx = 0x564b'4d56,
                    .edx = 0x4d});
  if (find(kLeafKvmFeatures) == nullptr) table_.push_back({.function = kLeafKvmFeatures});
}

// Leaf 1: initial APIC ID, logical processors, and the bits that the interrupt controller in the
// kernel stands for. AMD's TOPOEXT, that the topology leaves below are there.
void CpuidBuilder::fix_features() {
  constexpr uint32_t kX2Apic = 21;
  constexpr uint32_t kTscDeadline = 24;
  constexpr uint32_t kHypervisor = 31;
  constexpr uint32_t kApic = 9;
  constexpr uint32_t kHyperThreading = 28;
  constexpr uint32_t kTopologyExtensions = 22;
  // Software alone, and without it a guest takes an AMD processor's threads for cores; a host of
  // one thread per core does not have it.
  if (is_amd())
    if (CpuidEntry* const extended = find(kLeafAmdFeatures))
      set_bit(extended->ecx, kTopologyExtensions, true);
  CpuidEntry* const leaf = find(1);
  if (leaf == nullptr) return;
  leaf->ebx = set_field(leaf->ebx, 24, 8, std::min(apic_id_, 255U));
  leaf->ebx = set_field(leaf->ebx, 16, 8, std::min(threads_per_package(), 255U));
  set_bit(leaf->ecx, kX2Apic, true);
  set_bit(leaf->ecx, kTscDeadline, options_.tsc_deadline_timer);
  set_bit(leaf->ecx, kHypervisor, true);
  set_bit(leaf->edx, kApic, true);
  set_bit(leaf->edx, kHyperThreading, threads_per_package() > 1);
}

// EAX 31:26 is Intel's number of core IDs in the package; 25:14 how many APIC IDs share the cache
// (both less one). Levels 1 and 2 belong to a core, level 3 to the package.
void CpuidBuilder::fix_cache_sharing(CpuidEntry& entry) const {
  const uint32_t level = entry.eax >> 5 & 7;
  const uint32_t sharing_bits = level >= 3 ? package_bits() : thread_bits();
  entry.eax = set_field(entry.eax, 14, 12, (uint32_t{1} << sharing_bits) - 1);
  if (entry.function == 4)
    entry.eax =
        set_field(entry.eax, 26, 6, std::min((uint32_t{1} << bits_for(topology_.cores)) - 1, 63U));
}

void CpuidBuilder::fix_caches() {
  if (is_amd() && has_feature("topoext")) {
    const CpuidEntry* const first = find(kLeafAmdCaches);
    if (first == nullptr || (first->eax & 0x1f) == 0) synthesise_amd_caches();
  }
  for (CpuidEntry& entry : table_)
    if ((entry.function == 4 || entry.function == kLeafAmdCaches) && (entry.eax & 0x1f) != 0)
      fix_cache_sharing(entry);
}

// KVM leaves leaf 0x8000001D empty; leaves 0x80000005 and 6 tell the same in an older form (AMD APM
// vol. 3, E.4.4 to E.4.17).
void CpuidBuilder::synthesise_amd_caches() {
  // From the 4-bit code of associativity.
  constexpr std::array<uint32_t, 16> kWays = {0,  1, 2,  3,  4,  6,  8,   0,
                                              16, 0, 32, 48, 64, 96, 128, 0};
  const CpuidEntry* const l1 = find(0x8000'0005);
  const CpuidEntry* const l2 = find(0x8000'0006);
  if (l1 == nullptr || l2 == nullptr) return;
  struct Cache {
    uint32_t type;  // 1 data, 2 instruction, 3 both.
    uint32_t level;
    uint32_t size_bytes;
    uint32_t ways;
    uint32_t line_bytes;
  };
  const uint32_t l1d = l1->ecx;
  const uint32_t l1i = l1->edx;
  const uint32_t l2u = l2->ecx;
  const uint32_t l3u = l2->edx;
  const std::array<Cache, 4> caches = {{
      {1, 1, (l1d >> 24) * 1024, l1d >> 16 & 0xff, l1d & 0xff},
      {2, 1, (l1i >> 24) * 1024, l1i >> 16 & 0xff, l1i & 0xff},
      {3, 2, (l2u >> 16) * 1024, kWays[l2u >> 12 & 0xf], l2u & 0xff},
      {3, 3, (l3u >> 18) * 512 * 1024, kWays[l3u >> 12 & 0xf], l3u & 0xff},
  }};
  CpuidTable leaves;
  for (const Cache& cache : caches) {
    if (cache.size_bytes == 0 || cache.line_bytes == 0) continue;
    // Code 9 and the like send the reader here: 16 ways is what such processors have.
    const uint32_t ways = cache.ways == 0 ? 16 : cache.ways;
    const uint32_t sets = std::max(cache.size_bytes / (ways * cache.line_bytes), 1U);
    leaves.push_back({.function = kLeafAmdCaches,
                      .index = static_cast<uint32_t>(leaves.size()),
                      .index_matters = true,
                      .eax = cache.type | cache.level << 5 | 1U << 8,  // Self-initialising.
                      .ebx = (cache.line_bytes - 1) | (ways - 1) << 22,
                      .ecx = sets - 1});
  }
  leaves.push_back({.function = kLeafAmdCaches,
                    .index = static_cast<uint32_t>(leaves.size()),
                    .index_matters = true});
  erase(kLeafAmdCaches);
  table_.insert(table_.end(), leaves.begin(), leaves.end());
}

// Intel SDM, leaf 0xB: threads, then cores, then the end.
void CpuidBuilder::add_topology_leaf(uint32_t function) {
  constexpr uint32_t kTypeThread = 1;
  constexpr uint32_t kTypeCore = 2;
  erase(function);
  auto add = [this, function](uint32_t index, uint32_t shift, uint32_t count, uint32_t type) {
    table_.push_back({.function = function,
                      .index = index,
                      .index_matters = true,
                      .eax = shift,
                      .ebx = count,
                      .ecx = index | type << 8,
                      .edx = apic_id_});
  };
  add(0, thread_bits(), topology_.threads, kTypeThread);
  add(1, package_bits(), threads_per_package(), kTypeCore);
  add(2, 0, 0, 0);
}

void CpuidBuilder::fix_extended_topology() {
  CpuidEntry* leaf = find(0);
  if (leaf == nullptr) return;
  leaf->eax = std::max(leaf->eax, kLeafTopology);
  const bool has_v2 = leaf->eax >= kLeafTopologyV2 && !is_amd();
  add_topology_leaf(kLeafTopology);
  if (has_v2)
    add_topology_leaf(kLeafTopologyV2);
  else
    erase(kLeafTopologyV2);
}

// AMD APM vol. 3, E.4.7 and E.4.17.
void CpuidBuilder::fix_amd_topology() {
  erase(kLeafAmdTopologyV2);  // The leaves below say it all.
  if (!is_amd()) return;
  if (CpuidEntry* const leaf = find(0x8000'0008)) {
    leaf->ecx = set_field(leaf->ecx, 0, 8, std::min(threads_per_package(), 256U) - 1);
    leaf->ecx = set_field(leaf->ecx, 12, 4, package_bits());
  }
  if (CpuidEntry* const leaf = find(kLeafAmdFeatures))
    set_bit(leaf->ecx, 1, threads_per_package() > 1);  // CmpLegacy.
  erase(kLeafAmdTopology);
  if (!has_feature("topoext")) return;
  const uint32_t core =
      apic_id_ >> thread_bits() & ((uint32_t{1} << bits_for(topology_.cores)) - 1);
  const uint32_t package = apic_id_ >> package_bits();
  table_.push_back({.function = kLeafAmdTopology,
                    .eax = apic_id_,
                    .ebx = core | (topology_.threads - 1) << 8,
                    .ecx = package});
  if (CpuidEntry* const top = find(0x8000'0000)) top->eax = std::max(top->eax, kLeafAmdTopology);
}

void CpuidBuilder::apply_mask() {
  // A feature goes when anything that it needs goes, however far down.
  auto is_masked = [this](const CpuFeature& feature) {
    for (const CpuFeature* at = &feature; at != nullptr; at = find_cpu_feature(at->needs))
      if (std::ranges::find(options_.masked, at) != options_.masked.end()) return true;
    return false;
  };
  if (options_.masked.empty()) return;
  for (const CpuFeature& feature : cpu_features()) {
    if (!is_masked(feature)) continue;
    if (CpuidEntry* const entry = find(feature.function, feature.index))
      set_bit(cpuid_register(*entry, feature.reg), feature.bit, false);
  }
}

// Leaf 0xD: state components of features that are not there go, and the size with them; the other
// way round, tile features go without their state (the process was not granted it).
void CpuidBuilder::trim_xsave() {
  CpuidEntry* const main = find(0xd);
  if (main == nullptr) return;
  struct Component {
    uint32_t mask;
    const char* feature;
  };
  constexpr Component kComponents[] = {{1U << 2, "avx"},
                                       {3U << 3, "mpx"},
                                       {7U << 5, "avx512f"},
                                       {1U << 9, "pku"},
                                       {3U << 17, "amx_tile"}};
  for (const Component& component : kComponents)
    if (!has_feature(component.feature)) main->eax &= ~component.mask;
  if (!has_feature("xsave")) {
    erase(0xd);
    return;
  }
  if ((main->eax & 3U << 17) == 0)
    for (const char* name : {"amx_tile", "amx_bf16", "amx_int8", "amx_fp16"}) {
      const CpuFeature* const feature = find_cpu_feature(name);
      if (CpuidEntry* const entry = find(feature->function, feature->index))
        set_bit(cpuid_register(*entry, feature->reg), feature->bit, false);
    }
  constexpr uint32_t kLegacyAndHeaderBytes = 576;
  const uint32_t components = main->eax;
  uint32_t size = kLegacyAndHeaderBytes;
  std::erase_if(table_, [&](const CpuidEntry& entry) {
    if (entry.function != 0xd || entry.index < 2 || entry.index >= 32) return false;
    const bool is_supervisor = (entry.ecx & 1) != 0;
    const bool is_kept = is_supervisor || (components >> entry.index & 1) != 0;
    if (is_kept && !is_supervisor) size = std::max(size, entry.ebx + entry.eax);
    return !is_kept;
  });
  find(0xd)->ecx = size;
}

}  // namespace

Result<CpuTopology> make_topology(const CpuTopology& wanted) {
  CpuTopology result = wanted;
  if (wanted.cpus < 1 || wanted.cpus > kMaxCpus)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("A guest can have 1 to {} vCPUs, not {}", kMaxCpus, wanted.cpus));
  if (result.threads == 0)
    result.threads = result.sockets != 0 && result.cores != 0 &&
                             uint64_t{result.sockets} * result.cores <= result.cpus
                         ? result.cpus / (result.sockets * result.cores)
                         : 1;
  if (result.sockets == 0)
    result.sockets = result.cores != 0 && uint64_t{result.cores} * result.threads <= result.cpus
                         ? result.cpus / (result.cores * result.threads)
                         : 1;
  if (result.cores == 0)
    result.cores = static_cast<uint32_t>(
        std::max<uint64_t>(result.cpus / (uint64_t{result.sockets} * result.threads), 1));
  // No product overflows: each factor is compared on its own first.
  const bool fits = result.sockets <= result.cpus && result.cores <= result.cpus &&
                    result.threads <= result.cpus &&
                    uint64_t{result.sockets} * result.cores * result.threads == result.cpus;
  if (!fits)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("{} sockets of {} cores of {} threads are not {} vCPUs",
                             result.sockets, result.cores, result.threads, result.cpus));
  if (!apic_ids_fit(result))
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("{} sockets of {} cores of {} threads need APIC IDs beyond 254; use "
                             "powers of two, or fewer vCPUs",
                             result.sockets, result.cores, result.threads));
  return result;
}

uint32_t apic_id_of(const CpuTopology& topology, uint32_t index) {
  const uint32_t thread = index % topology.threads;
  const uint32_t core = index / topology.threads % topology.cores;
  const uint32_t socket = index / topology.threads / topology.cores;
  const uint32_t thread_bits = bits_for(topology.threads);
  return socket << (thread_bits + bits_for(topology.cores)) | core << thread_bits | thread;
}

bool apic_ids_fit(const CpuTopology& topology) {
  return apic_id_of(topology, topology.cpus - 1) < 255;
}

CpuidTable make_cpuid(const CpuidTable& supported, const CpuidOptions& options, uint32_t index) {
  return CpuidBuilder(supported, options, index).make();
}

uint32_t physical_address_bits(const CpuidTable& table) {
  for (const CpuidEntry& entry : table)
    if (entry.function == 0x8000'0008 && (entry.eax & 0xff) != 0)
      return std::min(entry.eax & 0xff, 52U);
  return 36;
}

std::string vendor_name(const CpuidTable& table) {
  std::string name;
  for (const CpuidEntry& entry : table) {
    if (entry.function != 0) continue;
    for (const uint32_t part : {entry.ebx, entry.edx, entry.ecx})
      for (uint32_t shift = 0; shift < 32; shift += 8)
        name += static_cast<char>(part >> shift & 0xff);
    return name;
  }
  return name;
}

}  // namespace skiff::vmm
