// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/acpi/aml.h"

#include <gmock/gmock.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "firmware/acpi/resources.h"

namespace skiff::firmware {
namespace {

using ::testing::ElementsAre;

TEST(AmlTest, IntegersTakeTheShortestEncoding) {
  EXPECT_THAT(aml_integer(0).bytes(), ElementsAre(0x00));
  EXPECT_THAT(aml_integer(1).bytes(), ElementsAre(0x01));
  EXPECT_THAT(aml_integer(2).bytes(), ElementsAre(0x0a, 2));
  EXPECT_THAT(aml_integer(0x1234).bytes(), ElementsAre(0x0b, 0x34, 0x12));
  EXPECT_THAT(aml_integer(0x12345678).bytes(), ElementsAre(0x0c, 0x78, 0x56, 0x34, 0x12));
  EXPECT_EQ(aml_integer(uint64_t{1} << 32).bytes().size(), 9u);
}

TEST(AmlTest, EisaIdIsPackedAsTheSpecificationSays) {
  EXPECT_THAT(aml_eisa_id("PNP0A03").bytes(), ElementsAre(0x0c, 0x41, 0xd0, 0x0a, 0x03));
}

TEST(AmlTest, UuidIsInMixedByteOrder) {
  EXPECT_THAT(aml_uuid("33db4d5b-1ff7-401c-9657-7441c03dd766").bytes(),
              ElementsAre(0x11, 19, 0x0a, 16, 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96,
                          0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66));
}

TEST(AmlTest, PathsArePaddedWithUnderscores) {
  EXPECT_THAT(aml_path("\\_SB").bytes(), ElementsAre('\\', '_', 'S', 'B', '_'));
}

TEST(AmlTest, PathsOfSeveralSegmentsSayHowMany) {
  EXPECT_THAT(aml_path("AB.C").bytes(), ElementsAre(0x2e, 'A', 'B', '_', '_', 'C', '_', '_', '_'));
  EXPECT_THAT(
      aml_path("\\_SB.PCI0.S001").bytes(),
      ElementsAre('\\', 0x2f, 3, '_', 'S', 'B', '_', 'P', 'C', 'I', '0', 'S', '0', '0', '1'));
}

TEST(AmlTest, FieldsAreCountedInBits) {
  EXPECT_THAT(aml_dword_fields("REGS", {"A", "B"}).bytes(),
              ElementsAre(0x5b, 0x81, 16, 'R', 'E', 'G', 'S', 3, 'A', '_', '_', '_', 32, 'B', '_',
                          '_', '_', 32));
  EXPECT_THAT(aml_io_region("REGS", 0x620, 16).bytes(),
              ElementsAre(0x5b, 0x80, 'R', 'E', 'G', 'S', 1, 0x0b, 0x20, 0x06, 0x0a, 16));
}

// The length field counts itself, so its width changes just before its value would.
TEST(AmlTest, PackageLengthGrowsAtItsLimits) {
  const auto package_of = [](size_t string_bytes) {
    return aml_package({aml_string(std::string(string_bytes, 'a'))}).bytes();
  };
  EXPECT_EQ(package_of(59)[1], 63);
  EXPECT_EQ(package_of(60)[1], 0x41);
  EXPECT_EQ(package_of(60)[2], 4);
  EXPECT_EQ(package_of(4090)[1], 0x4f);
  EXPECT_EQ(package_of(4090)[2], 0xff);
  EXPECT_EQ(package_of(4091)[1], 0x81);
}

TEST(AmlTest, WindowCountsItsLastAddress) {
  EXPECT_THAT(aml_io_window(0x0d00, 0xf300).bytes(),
              ElementsAre(0x88, 13, 0, 1, 0x0c, 3, 0, 0, 0x00, 0x0d, 0xff, 0xff, 0, 0, 0x00, 0xf3));
}

}  // namespace
}  // namespace skiff::firmware
