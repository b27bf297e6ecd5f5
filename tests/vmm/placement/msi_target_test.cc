// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/msi_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "devices/core/msi.h"

namespace skiff::vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = MsiTarget::Kind;

constexpr uint64_t kBase = 0xfee00000;
constexpr uint64_t kLogical = 1 << 2;
constexpr uint64_t kHint = 1 << 3;

std::vector<uint32_t> ids(uint32_t count) {
  std::vector<uint32_t> apic_ids(count);
  std::iota(apic_ids.begin(), apic_ids.end(), 0u);
  return apic_ids;
}

MsiTarget decode(uint64_t address, uint32_t data, const std::vector<uint32_t>& apic_ids) {
  return decode_msi_target({address, data}, apic_ids);
}

TEST(MsiTarget, PhysicalDestinationIsOneVcpuByItsApicId) {
  const MsiTarget target = decode(kBase | 3 << 12, 0x31, ids(4));
  EXPECT_EQ(target.kind, Kind::kVcpus);
  EXPECT_THAT(target.vcpus, ElementsAre(3));
  // APIC IDs have gaps where cores or threads are no powers of two.
  EXPECT_THAT(decode(kBase | 4 << 12, 0x31, {0, 1, 2, 4}).vcpus, ElementsAre(3));
  EXPECT_EQ(decode(kBase | 3 << 12, 0x31, {0, 1, 2, 4}).kind, Kind::kNobody);
}

TEST(MsiTarget, ExtendedDestinationBitsReachBeyond255) {
  const std::vector<uint32_t> wide = {0, 0x1ff, 0x7f02};
  EXPECT_THAT(decode(kBase | 0xff << 12 | 1 << 5, 0x31, wide).vcpus, ElementsAre(1));
  EXPECT_THAT(decode(kBase | 0x02 << 12 | 0x7f << 5, 0x31, wide).vcpus, ElementsAre(2));
  EXPECT_THAT(decode(uint64_t{0x7f} << 40 | kBase | 0x02 << 12, 0x31, wide).vcpus, ElementsAre(2));
}

TEST(MsiTarget, LogicalDestinationIsASetOfBits) {
  EXPECT_THAT(decode(kBase | 0x04 << 12 | kLogical, 0x31, ids(8)).vcpus, ElementsAre(2));
  const MsiTarget several = decode(kBase | 0x81 << 12 | kLogical | kHint, 0x131, ids(8));
  EXPECT_EQ(several.kind, Kind::kVcpus);
  EXPECT_THAT(several.vcpus, ElementsAre(0, 7));
  // The cluster of x2APIC: 16 APIC IDs, of which this is the second.
  EXPECT_THAT(decode(uint64_t{0x100} << 40 | kBase | 0x08 << 12 | kLogical, 0x31, ids(32)).vcpus,
              ElementsAre(19));
}

TEST(MsiTarget, BroadcastIsNobodyInParticular) {
  EXPECT_EQ(decode(kBase | 0xff << 12, 0x31, ids(4)).kind, Kind::kBroadcast);
  EXPECT_THAT(decode(kBase | 0xff << 12, 0x31, ids(4)).vcpus, IsEmpty());
}

TEST(MsiTarget, WhatIsNoOrdinaryInterruptHasNoTarget) {
  EXPECT_EQ(decode(0, 0x31, ids(4)).kind, Kind::kOther);                      // Never written.
  EXPECT_EQ(decode(0xfed00000, 0x31, ids(4)).kind, Kind::kOther);             // Not the window.
  EXPECT_EQ(decode(kBase | 1 << 12, 0x400, ids(4)).kind, Kind::kOther);       // NMI.
  EXPECT_EQ(decode(kBase | 1 << 12, 0x200, ids(4)).kind, Kind::kOther);       // SMI.
  EXPECT_THAT(decode(kBase | 1 << 12, 0x131, ids(4)).vcpus, ElementsAre(1));  // Lowest priority.
  EXPECT_EQ(decode(kBase | 9 << 12, 0x31, {}).kind, Kind::kNobody);
}

}  // namespace
}  // namespace skiff::vmm
