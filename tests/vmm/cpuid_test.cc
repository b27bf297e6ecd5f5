// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/cpuid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <ios>
#include <set>
#include <string_view>
#include <vector>

#include "loop/result.h"

namespace skiff::vmm {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

// What KVM_GET_SUPPORTED_CPUID says on an Intel server, shortened.
CpuidTable intel_host() {
  return {
      {.function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
      {.function = 1, .eax = 0x606a6, .ebx = 0x0140'0800, .ecx = 0x7efa'b223, .edx = 0x0fab'fbff},
      {.function = 4, .index = 0, .index_matters = true, .eax = 0xfc004121, .ebx = 0x02c0003f},
      {.function = 4, .index = 1, .index_matters = true, .eax = 0xfc004122, .ebx = 0x01c0003f},
      {.function = 4, .index = 2, .index_matters = true, .eax = 0xfc01c143, .ebx = 0x04c0003f},
      {.function = 4, .index = 3, .index_matters = true, .eax = 0xfc1fc163, .ebx = 0x02c0003f},
      {.function = 4, .index = 4, .index_matters = true},
      {.function = 7,
       .index = 0,
       .index_matters = true,
       .eax = 1,
       .ebx = 0xf1bf'07ab,
       .ecx = 0x0040'5f5e,
       .edx = 0x0140'8410},
      {.function = 7, .index = 1, .index_matters = true, .eax = 0x30},
      {.function = 0xb, .index = 0, .index_matters = true},
      {.function = 0xd,
       .index = 0,
       .index_matters = true,
       .eax = 0x0006'02e7,
       .ebx = 0x240,
       .ecx = 0x2b00},
      {.function = 0xd, .index = 1, .index_matters = true, .eax = 0xf},
      {.function = 0xd, .index = 2, .index_matters = true, .eax = 0x100, .ebx = 0x240},
      {.function = 0xd, .index = 5, .index_matters = true, .eax = 0x40, .ebx = 0x440},
      {.function = 0xd, .index = 6, .index_matters = true, .eax = 0x200, .ebx = 0x480},
      {.function = 0xd, .index = 7, .index_matters = true, .eax = 0x400, .ebx = 0x680},
      {.function = 0xd, .index = 9, .index_matters = true, .eax = 0x8, .ebx = 0xa80},
      {.function = 0xd, .index = 17, .index_matters = true, .eax = 0x40, .ebx = 0xac0},
      {.function = 0xd, .index = 18, .index_matters = true, .eax = 0x2000, .ebx = 0xb00},
      {.function = 0x1f, .index = 0, .index_matters = true},
      {.function = 0x4000'0000,
       .eax = 0x4000'0001,
       .ebx = 0x4b4d564b,
       .ecx = 0x564b4d56,
       .edx = 0x4d},
      {.function = 0x4000'0001, .eax = 0x0100'7efb},
      {.function = 0x8000'0000, .eax = 0x8000'0008},
      {.function = 0x8000'0001, .ecx = 0x121, .edx = 0x2c10'0800},
      {.function = 0x8000'0008, .eax = 0x392e, .ecx = 0},
  };
}

// The same of an AMD processor.
CpuidTable amd_host() {
  return {
      {.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
      {.function = 1, .eax = 0xa20f10, .ebx = 0x0b18'0800, .ecx = 0xfed8'3203, .edx = 0x078b'fbff},
      {.function = 7, .index = 0, .index_matters = true, .ebx = 0x219c'07a9, .ecx = 0x0040'068c},
      {.function = 0xd, .index = 0, .index_matters = true, .eax = 0x7, .ebx = 0x240, .ecx = 0x340},
      {.function = 0xd, .index = 2, .index_matters = true, .eax = 0x100, .ebx = 0x240},
      {.function = 0x8000'0000, .eax = 0x8000'0021, .ebx = 0x68747541},
      {.function = 0x8000'0001, .ecx = 0x0040'03f3, .edx = 0x2fd3'fbff},
      {.function = 0x8000'0005, .ecx = 0x2008'0140, .edx = 0x2008'0140},
      {.function = 0x8000'0006, .ecx = 0x0200'6140, .edx = 0x0100'9140},
      {.function = 0x8000'0008, .eax = 0x3030, .ecx = 0x7017},
      {.function = 0x8000'001e},
      {.function = 0x8000'0026, .index = 0, .index_matters = true, .ecx = 0x100},
  };
}

CpuidEntry entry(const CpuidTable& table, uint32_t function, uint32_t index = 0) {
  for (const CpuidEntry& candidate : table)
    if (candidate.function == function && candidate.index == index) return candidate;
  ADD_FAILURE() << "No leaf " << std::hex << function << "." << index;
  return {};
}

bool has_leaf(const CpuidTable& table, uint32_t function, uint32_t index = 0) {
  for (const CpuidEntry& candidate : table)
    if (candidate.function == function && candidate.index == index) return true;
  return false;
}

CpuTopology topology(uint32_t sockets, uint32_t cores, uint32_t threads) {
  return {
      .cpus = sockets * cores * threads, .sockets = sockets, .cores = cores, .threads = threads};
}

CpuidTable make(const CpuidTable& host, const CpuTopology& wanted, uint32_t index,
                std::string_view mask = "") {
  CpuidOptions options;
  options.topology = wanted;
  options.tsc_deadline_timer = true;
  options.masked = *parse_feature_mask(mask);
  return make_cpuid(host, options, index);
}

TEST(Topology, WhatIsNotSaidIsCoresOfOneSocket) {
  const auto got = make_topology({.cpus = 6, .sockets = 0, .cores = 0, .threads = 0});
  ASSERT_TRUE(got);
  EXPECT_EQ(got->sockets, 1u);
  EXPECT_EQ(got->cores, 6u);
  EXPECT_EQ(got->threads, 1u);
}

TEST(Topology, TheMissingFactorFollowsFromTheOthers) {
  const auto threads = make_topology({.cpus = 16, .sockets = 2, .cores = 4, .threads = 0});
  ASSERT_TRUE(threads);
  EXPECT_EQ(threads->threads, 2u);
  const auto sockets = make_topology({.cpus = 16, .sockets = 0, .cores = 4, .threads = 2});
  ASSERT_TRUE(sockets);
  EXPECT_EQ(sockets->sockets, 2u);
  const auto cores = make_topology({.cpus = 16, .sockets = 2, .cores = 0, .threads = 2});
  ASSERT_TRUE(cores);
  EXPECT_EQ(cores->cores, 4u);
}

TEST(Topology, ProductThatIsNotTheNumberOfCpusIsRefused) {
  const auto got = make_topology({.cpus = 6, .sockets = 1, .cores = 2, .threads = 2});
  ASSERT_FALSE(got);
  EXPECT_THAT(got.error().message(),
              HasSubstr("1 sockets of 2 cores of 2 threads are not 6 vCPUs"));
  EXPECT_FALSE(make_topology({.cpus = 4, .sockets = 3, .cores = 0, .threads = 0}));
  EXPECT_FALSE(
      make_topology({.cpus = 4, .sockets = 0x8000'0000, .cores = 0x8000'0000, .threads = 4}));
}

TEST(Topology, NumberOfCpusHasLimits) {
  EXPECT_FALSE(make_topology({.cpus = 0, .sockets = 0, .cores = 0, .threads = 0}));
  EXPECT_FALSE(make_topology({.cpus = 5000, .sockets = 0, .cores = 0, .threads = 0}));
  EXPECT_TRUE(make_topology({.cpus = 255, .sockets = 0, .cores = 0, .threads = 0}));
}

TEST(Topology, GapsThatPushApicIdsTooFarAreRefused) {
  // 17 sockets need 5 bits, 5 cores 3: 16 << 3 fits. 3 threads take 2 bits more: 16 << 5 does not.
  EXPECT_TRUE(make_topology({.cpus = 85, .sockets = 17, .cores = 5, .threads = 1}));
  EXPECT_FALSE(make_topology({.cpus = 255, .sockets = 17, .cores = 5, .threads = 3}));
}

TEST(ApicIds, ArePackedForPowersOfTwoAndHaveGapsOtherwise) {
  for (uint32_t i = 0; i < 8; ++i) EXPECT_EQ(apic_id_of(topology(2, 2, 2), i), i);
  EXPECT_EQ(apic_id_of(topology(2, 3, 1), 2), 2u);
  EXPECT_EQ(apic_id_of(topology(2, 3, 1), 3), 4u);
  EXPECT_EQ(apic_id_of(topology(2, 3, 2), 6), 8u);
  std::set<uint32_t> ids;
  for (uint32_t i = 0; i < 30; ++i) ids.insert(apic_id_of(topology(2, 5, 3), i));
  EXPECT_EQ(ids.size(), 30u);
}

TEST(Cpuid, LeafOneHasTheApicIdTheCountAndTheHypervisorBit) {
  const CpuidEntry leaf = entry(make(intel_host(), topology(1, 4, 2), 5), 1);
  EXPECT_EQ(leaf.ebx >> 24, 5u);
  EXPECT_EQ(leaf.ebx >> 16 & 0xff, 8u);
  EXPECT_EQ(leaf.ebx & 0xffff, 0x0800u);  // The line size stays.
  EXPECT_EQ(leaf.ecx >> 31 & 1, 1u);      // Hypervisor.
  EXPECT_EQ(leaf.ecx >> 21 & 1, 1u);      // x2APIC.
  EXPECT_EQ(leaf.ecx >> 24 & 1, 1u);      // TSC deadline.
  EXPECT_EQ(leaf.edx >> 28 & 1, 1u);      // Several logical processors.
  EXPECT_EQ(entry(make(intel_host(), topology(1, 1, 1), 0), 1).edx >> 28 & 1, 0u);
}

TEST(Cpuid, ExtendedTopologyCountsThreadsAndCores) {
  const CpuidTable table = make(intel_host(), topology(2, 3, 2), 7);  // Socket 1, core 0, thread 1.
  for (const uint32_t function : {0xbU, 0x1fU}) {
    const CpuidEntry threads = entry(table, function, 0);
    EXPECT_EQ(threads.eax, 1u);
    EXPECT_EQ(threads.ebx, 2u);
    EXPECT_EQ(threads.ecx, 0x100u);
    EXPECT_EQ(threads.edx, 9u);
    const CpuidEntry cores = entry(table, function, 1);
    EXPECT_EQ(cores.eax, 3u);
    EXPECT_EQ(cores.ebx, 6u);
    EXPECT_EQ(cores.ecx, 0x201u);
    EXPECT_EQ(cores.edx, 9u);
    EXPECT_EQ(entry(table, function, 2).ebx, 0u);
  }
}

TEST(Cpuid, IntelCachesAreSharedByCoreAndByPackage) {
  const CpuidTable table = make(intel_host(), topology(1, 4, 2), 0);
  EXPECT_EQ(entry(table, 4, 0).eax >> 14 & 0xfff, 1u);
  EXPECT_EQ(entry(table, 4, 2).eax >> 14 & 0xfff, 1u);
  EXPECT_EQ(entry(table, 4, 3).eax >> 14 & 0xfff, 7u);
  EXPECT_EQ(entry(table, 4, 0).eax >> 26, 3u);
  EXPECT_EQ(entry(table, 4, 0).eax & 0x3fff, 0x121u);
  EXPECT_EQ(entry(table, 4, 4).eax, 0u);  // The end stays the end.
}

TEST(Cpuid, AmdTopologyIsInItsExtendedLeaves) {
  const CpuidTable table = make(amd_host(), topology(2, 4, 2), 11);  // Socket 1, core 1, thread 1.
  const CpuidEntry sizes = entry(table, 0x8000'0008);
  EXPECT_EQ(sizes.ecx & 0xff, 7u);
  EXPECT_EQ(sizes.ecx >> 12 & 0xf, 3u);
  EXPECT_EQ(sizes.eax, 0x3030u);
  const CpuidEntry ids = entry(table, 0x8000'001e);
  EXPECT_EQ(ids.eax, 11u);
  EXPECT_EQ(ids.ebx, 0x101u);
  EXPECT_EQ(ids.ecx, 1u);
  EXPECT_EQ(entry(table, 0x8000'0001).ecx >> 1 & 1, 1u);
  EXPECT_EQ(entry(table, 0xb, 1).ebx, 8u);
  EXPECT_FALSE(has_leaf(table, 0x8000'0026));
}

TEST(Cpuid, AmdThreadsAreShownEvenWhereTheHostHasNoTopologyExtensions) {
  CpuidTable host = amd_host();
  for (CpuidEntry& leaf : host) {
    if (leaf.function == 0x8000'0000) leaf.eax = 0x8000'001a;
    if (leaf.function == 0x8000'0001) leaf.ecx &= ~(1U << 22);
  }
  std::erase_if(host, [](const CpuidEntry& leaf) { return leaf.function > 0x8000'001a; });
  const CpuidTable table = make(host, topology(1, 2, 2), 3);
  EXPECT_EQ(entry(table, 0x8000'0001).ecx >> 22 & 1, 1U);
  EXPECT_GE(entry(table, 0x8000'0000).eax, 0x8000'001eU);
  EXPECT_EQ(entry(table, 0x8000'001e).ebx, 0x101U);
  EXPECT_EQ(entry(table, 0x8000'001d, 0).eax & 0xff, 0x21U);
  EXPECT_EQ(entry(make(host, topology(1, 2, 2), 3, "topoext"), 0x8000'0001).ecx >> 22 & 1, 0U);
}

TEST(Cpuid, AmdCachesAreMadeFromTheOldLeavesWhereKvmLeavesThemOut) {
  const CpuidTable table = make(amd_host(), topology(1, 4, 2), 0);
  const CpuidEntry l1 = entry(table, 0x8000'001d, 0);
  EXPECT_EQ(l1.eax & 0xff, 0x21u);                         // Data, level 1.
  EXPECT_EQ((l1.ebx >> 22) + 1, 8u);                       // Ways.
  EXPECT_EQ((l1.ebx & 0xfff) + 1, 64u);                    // Line.
  EXPECT_EQ(l1.ecx + 1, 64u);                              // 32 KiB.
  EXPECT_EQ(entry(table, 0x8000'001d, 2).ecx + 1, 1024u);  // 512 KiB, 8 ways.
  const CpuidEntry l3 = entry(table, 0x8000'001d, 3);
  EXPECT_EQ(l3.eax & 0xff, 0x63u);
  EXPECT_EQ(l3.eax >> 14 & 0xfff, 7u);  // Shared by all.
  EXPECT_EQ((uint64_t{l3.ecx} + 1) * ((l3.ebx >> 22) + 1) * 64, 64u * 512 * 1024);
  EXPECT_EQ(entry(table, 0x8000'001d, 4).eax, 0u);
}

TEST(Cpuid, MaximumLeafCoversTheTopology) {
  CpuidTable old = intel_host();
  old[0].eax = 4;
  const CpuidTable table = make(old, topology(1, 2, 1), 0);
  EXPECT_EQ(entry(table, 0).eax, 0xbu);
  EXPECT_FALSE(has_leaf(table, 0x1f));
}

TEST(Cpuid, KvmSignatureIsThereEvenIfTheHostLeftItOut) {
  const CpuidEntry leaf = entry(make(amd_host(), topology(1, 1, 1), 0), 0x4000'0000);
  EXPECT_EQ(leaf.eax, 0x4000'0001u);
  EXPECT_EQ(leaf.ebx, 0x4b4d564bu);
  EXPECT_EQ(entry(make(intel_host(), topology(1, 1, 1), 0), 0x4000'0001).eax, 0x0100'7efbu);
}

TEST(FeatureMask, MaskedFeatureIsGoneAndOthersStay) {
  const auto before = feature_names(make(intel_host(), topology(1, 1, 1), 0));
  const auto after = feature_names(make(intel_host(), topology(1, 1, 1), 0, "sha_ni:x2apic"));
  EXPECT_THAT(before, Contains("sha_ni"));
  EXPECT_THAT(before, Contains("x2apic"));
  EXPECT_THAT(after, Not(Contains("sha_ni")));
  EXPECT_THAT(after, Not(Contains("x2apic")));
  EXPECT_EQ(before.size(), after.size() + 2);
}

TEST(FeatureMask, MaskingTakesAlongWhatNeedsIt) {
  const CpuidTable table = make(intel_host(), topology(1, 1, 1), 0, "avx2");
  const auto names = feature_names(table);
  for (const char* name : {"avx2", "avx512f", "avx512vl", "avx512_vnni"})
    EXPECT_THAT(names, Not(Contains(name)));
  EXPECT_THAT(names, Contains("avx"));
}

TEST(FeatureMask, XsaveStateOfMaskedFeaturesGoesToo) {
  const CpuidTable full = make(intel_host(), topology(1, 1, 1), 0);
  EXPECT_EQ(entry(full, 0xd).eax, 0x602e7u);
  EXPECT_EQ(entry(full, 0xd).ecx, 0x2b00u);
  const CpuidTable table = make(intel_host(), topology(1, 1, 1), 0, "avx512f:amx_tile");
  EXPECT_EQ(entry(table, 0xd).eax, 0x207u);
  EXPECT_EQ(entry(table, 0xd).ecx, 0xa88u);
  EXPECT_FALSE(has_leaf(table, 0xd, 6));
  EXPECT_FALSE(has_leaf(table, 0xd, 18));
  EXPECT_TRUE(has_leaf(table, 0xd, 9));
  EXPECT_FALSE(has_leaf(make(intel_host(), topology(1, 1, 1), 0, "xsave"), 0xd));
}

TEST(FeatureMask, TilesWithoutTheirStateAreNotShown) {
  CpuidTable host = intel_host();
  for (CpuidEntry& leaf : host)
    if (leaf.function == 0xd && leaf.index == 0) leaf.eax = 0x2e7;
  EXPECT_THAT(feature_names(make(intel_host(), topology(1, 1, 1), 0)), Contains("amx_tile"));
  EXPECT_THAT(feature_names(make(host, topology(1, 1, 1), 0)), Not(Contains("amx_tile")));
}

TEST(FeatureMask, UnknownNameIsRefusedWithTheNearestOnes) {
  const auto mask = parse_feature_mask("avx2:avx512ff");
  ASSERT_FALSE(mask);
  EXPECT_EQ(mask.error().kind(), loop::ErrorKind::kInvalidArgument);
  EXPECT_THAT(mask.error().message(), HasSubstr("\"avx512ff\""));
  EXPECT_THAT(mask.error().message(), HasSubstr("avx512f,"));
  EXPECT_FALSE(parse_feature_mask("avx2::fma"));
}

TEST(FeatureMask, EveryNameIsUniqueAndEveryNeedExists) {
  std::set<std::string_view> names;
  for (const CpuFeature& feature : cpu_features()) {
    EXPECT_TRUE(names.insert(feature.name).second) << feature.name;
    EXPECT_EQ(find_cpu_feature(feature.name), &feature);
    if (!feature.needs.empty()) {
      EXPECT_NE(find_cpu_feature(feature.needs), nullptr) << feature.name;
    }
  }
}

TEST(Cpuid, VendorAndAddressWidthAreRead) {
  EXPECT_EQ(vendor_name(intel_host()), "GenuineIntel");
  EXPECT_EQ(vendor_name(amd_host()), "AuthenticAMD");
  EXPECT_EQ(physical_address_bits(intel_host()), 46u);
  EXPECT_EQ(physical_address_bits({}), 36u);
}

}  // namespace
}  // namespace skiff::vmm
