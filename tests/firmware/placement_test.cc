// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/placement.h"

#include <gmock/gmock.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "devices/core/guest_memory.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using ::testing::HasSubstr;

class PlacementTest : public ::testing::Test {
 protected:
  std::vector<std::byte> ram_ = std::vector<std::byte>(4 << 20);
  std::vector<std::byte> high_ = std::vector<std::byte>(64 << 10);
  devices::GuestMemory memory_{
      {{.base = {0}, .host = ram_.data(), .size_bytes = ram_.size()},
       {.base = {0x800000}, .host = high_.data(), .size_bytes = high_.size()}}};
  Placement placement_{memory_, {}};
};

TEST_F(PlacementTest, NeighboursFitAndOverlapsDoNot) {
  EXPECT_TRUE(placement_.claim("a", {0x100000}, 0x1000));
  EXPECT_TRUE(placement_.claim("b", {0x101000}, 0x1000));
  const auto overlap = placement_.claim("c", {0x101fff}, 1);
  ASSERT_FALSE(overlap);
  EXPECT_EQ(overlap.error().message(),
            "c (0x101fff to 0x102000) overlaps b (0x101000 to 0x102000)");
}

TEST_F(PlacementTest, EmptyWrappingAndUnbackedRangesAreRefused) {
  EXPECT_FALSE(placement_.claim("a", {0x100000}, 0));
  EXPECT_THAT(placement_.claim("a", {UINT64_MAX}, 2).error().message(),
              HasSubstr("past the end of the address space"));
  EXPECT_EQ(placement_.claim("a", {0x400000}, 1).error().kind(), loop::ErrorKind::kInvalidArgument);
  EXPECT_FALSE(placement_.claim("a", {0x3fffff}, 2));
}

TEST_F(PlacementTest, HighestFreeRangeBelowTheLimitIsFound) {
  EXPECT_EQ(placement_.claim_high("a", 1, UINT64_MAX)->base.value, 0x80f000u);
  EXPECT_EQ(placement_.claim_high("b", 1, UINT64_MAX)->base.value, 0x80e000u);
  EXPECT_EQ(placement_.claim_high("c", 0x11000, UINT64_MAX)->base.value, 0x3ef000u);
  EXPECT_EQ(placement_.claim_high("d", 0x1000, 0x200fff)->base.value, 0x1ff000u);
}

TEST_F(PlacementTest, HighRangeStepsBelowWhatIsTaken) {
  ASSERT_TRUE(placement_.claim("kernel", {0x300000}, 0x100000));
  EXPECT_EQ(placement_.claim_high("a", 0x1001, 0x400000)->base.value, 0x2fe000u);
  const auto none = placement_.claim_high("initrd", 0x300000, 0x400000);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message(), HasSubstr("initrd (3 MiB) finds no room below 0x400000"));
  EXPECT_FALSE(placement_.claim_high("a", UINT64_MAX, UINT64_MAX));
}

}  // namespace
}  // namespace skiff::firmware
