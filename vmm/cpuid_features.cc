// SPDX-License-Identifier: GPL-2.0-or-later
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/result.h"
#include "vmm/cpuid.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// In the order of leaves and bits, as Linux's arch/x86/include/asm/cpufeatures.h names them.
constexpr CpuFeature kFeatures[] = {
    {"fpu", 0x1, 0, CpuidRegister::kEdx, 0},
    {"vme", 0x1, 0, CpuidRegister::kEdx, 1},
    {"de", 0x1, 0, CpuidRegister::kEdx, 2},
    {"pse", 0x1, 0, CpuidRegister::kEdx, 3},
    {"tsc", 0x1, 0, CpuidRegister::kEdx, 4},
    {"msr", 0x1, 0, CpuidRegister::kEdx, 5},
    {"pae", 0x1, 0, CpuidRegister::kEdx, 6},
    {"mce", 0x1, 0, CpuidRegister::kEdx, 7},
    {"cx8", 0x1, 0, CpuidRegister::kEdx, 8},
    {"apic", 0x1, 0, CpuidRegister::kEdx, 9},
    {"sep", 0x1, 0, CpuidRegister::kEdx, 11},
    {"mtrr", 0x1, 0, CpuidRegister::kEdx, 12},
    {"pge", 0x1, 0, CpuidRegister::kEdx, 13},
    {"mca", 0x1, 0, CpuidRegister::kEdx, 14},
    {"cmov", 0x1, 0, CpuidRegister::kEdx, 15},
    {"pat", 0x1, 0, CpuidRegister::kEdx, 16},
    {"pse36", 0x1, 0, CpuidRegister::kEdx, 17},
    {"clflush", 0x1, 0, CpuidRegister::kEdx, 19},
    {"mmx", 0x1, 0, CpuidRegister::kEdx, 23},
    {"fxsr", 0x1, 0, CpuidRegister::kEdx, 24},
    {"sse", 0x1, 0, CpuidRegister::kEdx, 25},
    {"sse2", 0x1, 0, CpuidRegister::kEdx, 26, "sse"},
    {"ss", 0x1, 0, CpuidRegister::kEdx, 27},
    {"ht", 0x1, 0, CpuidRegister::kEdx, 28},
    {"pni", 0x1, 0, CpuidRegister::kEcx, 0, "sse2"},
    {"pclmulqdq", 0x1, 0, CpuidRegister::kEcx, 1, "sse2"},
    {"monitor", 0x1, 0, CpuidRegister::kEcx, 3},
    {"vmx", 0x1, 0, CpuidRegister::kEcx, 5},
    {"ssse3", 0x1, 0, CpuidRegister::kEcx, 9, "pni"},
    {"fma", 0x1, 0, CpuidRegister::kEcx, 12, "avx"},
    {"cx16", 0x1, 0, CpuidRegister::kEcx, 13},
    {"pcid", 0x1, 0, CpuidRegister::kEcx, 17},
    {"sse4_1", 0x1, 0, CpuidRegister::kEcx, 19, "ssse3"},
    {"sse4_2", 0x1, 0, CpuidRegister::kEcx, 20, "sse4_1"},
    {"x2apic", 0x1, 0, CpuidRegister::kEcx, 21, "apic"},
    {"movbe", 0x1, 0, CpuidRegister::kEcx, 22},
    {"popcnt", 0x1, 0, CpuidRegister::kEcx, 23},
    {"tsc_deadline_timer", 0x1, 0, CpuidRegister::kEcx, 24, "apic"},
    {"aes", 0x1, 0, CpuidRegister::kEcx, 25, "sse2"},
    {"xsave", 0x1, 0, CpuidRegister::kEcx, 26},
    {"avx", 0x1, 0, CpuidRegister::kEcx, 28, "xsave"},
    {"f16c", 0x1, 0, CpuidRegister::kEcx, 29, "avx"},
    {"rdrand", 0x1, 0, CpuidRegister::kEcx, 30},
    {"hypervisor", 0x1, 0, CpuidRegister::kEcx, 31},
    {"arat", 0x6, 0, CpuidRegister::kEax, 2},
    {"fsgsbase", 0x7, 0, CpuidRegister::kEbx, 0},
    {"tsc_adjust", 0x7, 0, CpuidRegister::kEbx, 1},
    {"sgx", 0x7, 0, CpuidRegister::kEbx, 2},
    {"bmi1", 0x7, 0, CpuidRegister::kEbx, 3},
    {"hle", 0x7, 0, CpuidRegister::kEbx, 4},
    {"avx2", 0x7, 0, CpuidRegister::kEbx, 5, "avx"},
    {"smep", 0x7, 0, CpuidRegister::kEbx, 7},
    {"bmi2", 0x7, 0, CpuidRegister::kEbx, 8},
    {"erms", 0x7, 0, CpuidRegister::kEbx, 9},
    {"invpcid", 0x7, 0, CpuidRegister::kEbx, 10},
    {"rtm", 0x7, 0, CpuidRegister::kEbx, 11},
    {"mpx", 0x7, 0, CpuidRegister::kEbx, 14},
    {"avx512f", 0x7, 0, CpuidRegister::kEbx, 16, "avx2"},
    {"avx512dq", 0x7, 0, CpuidRegister::kEbx, 17, "avx512f"},
    {"rdseed", 0x7, 0, CpuidRegister::kEbx, 18},
    {"adx", 0x7, 0, CpuidRegister::kEbx, 19},
    {"smap", 0x7, 0, CpuidRegister::kEbx, 20},
    {"avx512ifma", 0x7, 0, CpuidRegister::kEbx, 21, "avx512f"},
    {"clflushopt", 0x7, 0, CpuidRegister::kEbx, 23},
    {"clwb", 0x7, 0, CpuidRegister::kEbx, 24},
    {"avx512pf", 0x7, 0, CpuidRegister::kEbx, 26, "avx512f"},
    {"avx512er", 0x7, 0, CpuidRegister::kEbx, 27, "avx512f"},
    {"avx512cd", 0x7, 0, CpuidRegister::kEbx, 28, "avx512f"},
    {"sha_ni", 0x7, 0, CpuidRegister::kEbx, 29, "sse2"},
    {"avx512bw", 0x7, 0, CpuidRegister::kEbx, 30, "avx512f"},
    {"avx512vl", 0x7, 0, CpuidRegister::kEbx, 31, "avx512f"},
    {"avx512vbmi", 0x7, 0, CpuidRegister::kEcx, 1, "avx512f"},
    {"umip", 0x7, 0, CpuidRegister::kEcx, 2},
    {"pku", 0x7, 0, CpuidRegister::kEcx, 3, "xsave"},
    {"ospke", 0x7, 0, CpuidRegister::kEcx, 4, "pku"},
    {"waitpkg", 0x7, 0, CpuidRegister::kEcx, 5},
    {"avx512_vbmi2", 0x7, 0, CpuidRegister::kEcx, 6, "avx512f"},
    {"gfni", 0x7, 0, CpuidRegister::kEcx, 8, "sse2"},
    {"vaes", 0x7, 0, CpuidRegister::kEcx, 9, "avx"},
    {"vpclmulqdq", 0x7, 0, CpuidRegister::kEcx, 10, "avx"},
    {"avx512_vnni", 0x7, 0, CpuidRegister::kEcx, 11, "avx512f"},
    {"avx512_bitalg", 0x7, 0, CpuidRegister::kEcx, 12, "avx512f"},
    {"avx512_vpopcntdq", 0x7, 0, CpuidRegister::kEcx, 14, "avx512f"},
    {"la57", 0x7, 0, CpuidRegister::kEcx, 16},
    {"rdpid", 0x7, 0, CpuidRegister::kEcx, 22},
    {"bus_lock_detect", 0x7, 0, CpuidRegister::kEcx, 24},
    {"cldemote", 0x7, 0, CpuidRegister::kEcx, 25},
    {"movdiri", 0x7, 0, CpuidRegister::kEcx, 27},
    {"movdir64b", 0x7, 0, CpuidRegister::kEcx, 28},
    {"avx512_4vnniw", 0x7, 0, CpuidRegister::kEdx, 2, "avx512f"},
    {"avx512_4fmaps", 0x7, 0, CpuidRegister::kEdx, 3, "avx512f"},
    {"fsrm", 0x7, 0, CpuidRegister::kEdx, 4},
    {"avx512_vp2intersect", 0x7, 0, CpuidRegister::kEdx, 8, "avx512f"},
    {"md_clear", 0x7, 0, CpuidRegister::kEdx, 10},
    {"serialize", 0x7, 0, CpuidRegister::kEdx, 14},
    {"tsxldtrk", 0x7, 0, CpuidRegister::kEdx, 16},
    {"amx_bf16", 0x7, 0, CpuidRegister::kEdx, 22, "amx_tile"},
    {"avx512_fp16", 0x7, 0, CpuidRegister::kEdx, 23, "avx512bw"},
    {"amx_tile", 0x7, 0, CpuidRegister::kEdx, 24, "xsave"},
    {"amx_int8", 0x7, 0, CpuidRegister::kEdx, 25, "amx_tile"},
    {"flush_l1d", 0x7, 0, CpuidRegister::kEdx, 28},
    {"arch_capabilities", 0x7, 0, CpuidRegister::kEdx, 29},
    {"avx_vnni", 0x7, 1, CpuidRegister::kEax, 4, "avx"},
    {"avx512_bf16", 0x7, 1, CpuidRegister::kEax, 5, "avx512f"},
    {"fzrm", 0x7, 1, CpuidRegister::kEax, 10},
    {"fsrs", 0x7, 1, CpuidRegister::kEax, 11},
    {"fsrc", 0x7, 1, CpuidRegister::kEax, 12},
    {"amx_fp16", 0x7, 1, CpuidRegister::kEax, 21, "amx_tile"},
    {"avx_ifma", 0x7, 1, CpuidRegister::kEax, 23, "avx"},
    {"lam", 0x7, 1, CpuidRegister::kEax, 26},
    {"xsaveopt", 0xd, 1, CpuidRegister::kEax, 0, "xsave"},
    {"xsavec", 0xd, 1, CpuidRegister::kEax, 1, "xsave"},
    {"xgetbv1", 0xd, 1, CpuidRegister::kEax, 2, "xsave"},
    {"xsaves", 0xd, 1, CpuidRegister::kEax, 3, "xsave"},
    {"xfd", 0xd, 1, CpuidRegister::kEax, 4, "xsave"},
    {"lahf_lm", 0x80000001, 0, CpuidRegister::kEcx, 0},
    {"cmp_legacy", 0x80000001, 0, CpuidRegister::kEcx, 1},
    {"svm", 0x80000001, 0, CpuidRegister::kEcx, 2},
    {"extapic", 0x80000001, 0, CpuidRegister::kEcx, 3},
    {"cr8_legacy", 0x80000001, 0, CpuidRegister::kEcx, 4},
    {"abm", 0x80000001, 0, CpuidRegister::kEcx, 5},
    {"sse4a", 0x80000001, 0, CpuidRegister::kEcx, 6, "pni"},
    {"misalignsse", 0x80000001, 0, CpuidRegister::kEcx, 7},
    {"3dnowprefetch", 0x80000001, 0, CpuidRegister::kEcx, 8},
    {"osvw", 0x80000001, 0, CpuidRegister::kEcx, 9},
    {"ibs", 0x80000001, 0, CpuidRegister::kEcx, 10},
    {"xop", 0x80000001, 0, CpuidRegister::kEcx, 11, "avx"},
    {"skinit", 0x80000001, 0, CpuidRegister::kEcx, 12},
    {"wdt", 0x80000001, 0, CpuidRegister::kEcx, 13},
    {"fma4", 0x80000001, 0, CpuidRegister::kEcx, 16, "avx"},
    {"tce", 0x80000001, 0, CpuidRegister::kEcx, 17},
    {"tbm", 0x80000001, 0, CpuidRegister::kEcx, 21},
    {"topoext", 0x80000001, 0, CpuidRegister::kEcx, 22},
    {"perfctr_core", 0x80000001, 0, CpuidRegister::kEcx, 23},
    {"mwaitx", 0x80000001, 0, CpuidRegister::kEcx, 29},
    {"syscall", 0x80000001, 0, CpuidRegister::kEdx, 11},
    {"nx", 0x80000001, 0, CpuidRegister::kEdx, 20},
    {"mmxext", 0x80000001, 0, CpuidRegister::kEdx, 22},
    {"fxsr_opt", 0x80000001, 0, CpuidRegister::kEdx, 25},
    {"pdpe1gb", 0x80000001, 0, CpuidRegister::kEdx, 26},
    {"rdtscp", 0x80000001, 0, CpuidRegister::kEdx, 27},
    {"lm", 0x80000001, 0, CpuidRegister::kEdx, 29},
    {"3dnowext", 0x80000001, 0, CpuidRegister::kEdx, 30},
    {"3dnow", 0x80000001, 0, CpuidRegister::kEdx, 31},
    {"clzero", 0x80000008, 0, CpuidRegister::kEbx, 0},
    {"irperf", 0x80000008, 0, CpuidRegister::kEbx, 1},
    {"xsaveerptr", 0x80000008, 0, CpuidRegister::kEbx, 2},
    {"rdpru", 0x80000008, 0, CpuidRegister::kEbx, 4},
    {"wbnoinvd", 0x80000008, 0, CpuidRegister::kEbx, 9},
    {"ibpb", 0x80000008, 0, CpuidRegister::kEbx, 12},
    {"ibrs", 0x80000008, 0, CpuidRegister::kEbx, 14},
    {"stibp", 0x80000008, 0, CpuidRegister::kEbx, 15},
    {"virt_ssbd", 0x80000008, 0, CpuidRegister::kEbx, 25},
};

constexpr size_t kNearNames = 3;

// Levenshtein's distance.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, changed});
    }
  }
  return row.back();
}

std::string near_names(std::string_view name) {
  std::vector<std::pair<size_t, std::string_view>> ranked;
  for (const CpuFeature& feature : kFeatures)
    ranked.emplace_back(edit_distance(name, feature.name), feature.name);
  std::ranges::sort(ranked);
  std::string text;
  for (size_t i = 0; i < kNearNames; ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", ranked[i].second);
  return text;
}

}  // namespace

std::span<const CpuFeature> cpu_features() { return kFeatures; }

const CpuFeature* find_cpu_feature(std::string_view name) {
  const auto found = std::ranges::find(kFeatures, name, &CpuFeature::name);
  return found == std::end(kFeatures) ? nullptr : found;
}

Result<std::vector<const CpuFeature*>> parse_feature_mask(std::string_view mask) {
  std::vector<const CpuFeature*> features;
  while (!mask.empty()) {
    const size_t colon = std::min(mask.find(':'), mask.size());
    const std::string_view name = mask.substr(0, colon);
    const CpuFeature* const feature = find_cpu_feature(name);
    if (feature == nullptr)
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("There is no CPU feature \"{}\" to mask; the nearest names are {} "
                               "(names as in /proc/cpuinfo, separated by colons)",
                               name, near_names(name)));
    features.push_back(feature);
    mask.remove_prefix(std::min(colon + 1, mask.size()));
  }
  return features;
}

uint32_t& cpuid_register(CpuidEntry& entry, CpuidRegister reg) {
  switch (reg) {
    case CpuidRegister::kEax:
      return entry.eax;
    case CpuidRegister::kEbx:
      return entry.ebx;
    case CpuidRegister::kEcx:
      return entry.ecx;
    case CpuidRegister::kEdx:
      break;
  }
  return entry.edx;
}

std::vector<std::string_view> feature_names(const CpuidTable& table) {
  std::vector<std::string_view> names;
  for (const CpuFeature& feature : kFeatures)
    for (CpuidEntry entry : table)
      if (entry.function == feature.function && entry.index == feature.index &&
          (cpuid_register(entry, feature.reg) >> feature.bit & 1) != 0)
        names.push_back(feature.name);
  return names;
}

}  // namespace skiff::vmm
