// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/core/guest_memory.h"

#include <gmock/gmock.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace skiff::devices {
namespace {

// RAM as a PC has it: with a hole.
class GuestMemoryTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kLowBytes = 0x2000;
  static constexpr uint64_t kHighBase = 0x100000000;
  static constexpr uint64_t kHighBytes = 0x1000;

  std::vector<std::byte> low_ = std::vector<std::byte>(kLowBytes);
  std::vector<std::byte> high_ = std::vector<std::byte>(kHighBytes);
  GuestMemory memory_{{{{0}, low_.data(), kLowBytes}, {{kHighBase}, high_.data(), kHighBytes}}};
};

TEST_F(GuestMemoryTest, SizeIsTheSumOfTheRegions) {
  EXPECT_EQ(memory_.size_bytes(), kLowBytes + kHighBytes);
  EXPECT_EQ(GuestMemory().size_bytes(), 0u);
}

TEST_F(GuestMemoryTest, StoredValueLiesAtItsAddressAndLoadsBack) {
  ASSERT_TRUE(memory_.store(GuestAddress{kHighBase + 8}, uint32_t{0xdeadbeef}));
  EXPECT_EQ(high_[8], std::byte{0xef});
  EXPECT_EQ(memory_.load<uint32_t>(GuestAddress{kHighBase + 8}), 0xdeadbeefu);
}

TEST_F(GuestMemoryTest, UnalignedAccessWorks) {
  ASSERT_TRUE(memory_.store(GuestAddress{3}, uint64_t{0x0102030405060708}));
  EXPECT_EQ(memory_.load<uint64_t>(GuestAddress{3}), 0x0102030405060708u);
}

TEST_F(GuestMemoryTest, RangeUpToTheLastByteTranslatesAndOneMoreDoesNot) {
  EXPECT_TRUE(memory_.translate(GuestAddress{0}, kLowBytes));
  EXPECT_FALSE(memory_.translate(GuestAddress{0}, kLowBytes + 1));
  EXPECT_TRUE(memory_.translate(GuestAddress{kLowBytes - 1}, 1));
  EXPECT_FALSE(memory_.translate(GuestAddress{kLowBytes - 1}, 2));
  EXPECT_FALSE(memory_.translate(GuestAddress{kLowBytes}, 1));
  EXPECT_FALSE(memory_.translate(GuestAddress{kHighBase - 1}, 2));
}

TEST_F(GuestMemoryTest, SumThatWrapsIsOutsideAndNotInside) {
  const uint64_t top = std::numeric_limits<uint64_t>::max();
  EXPECT_FALSE(memory_.translate(GuestAddress{top}, 2));
  EXPECT_FALSE(memory_.translate(GuestAddress{16}, top));
  EXPECT_FALSE(memory_.translate(GuestAddress{kHighBase + 1}, top - kHighBase));
}

TEST_F(GuestMemoryTest, CopyThatLeavesRamSaysSoAndChangesNothing) {
  std::array<std::byte, 16> bytes;
  bytes.fill(std::byte{0x5a});
  EXPECT_FALSE(memory_.write(GuestAddress{kLowBytes - 8}, bytes));
  EXPECT_EQ(low_[kLowBytes - 8], std::byte{0});
  EXPECT_FALSE(memory_.read(GuestAddress{kHighBase + kHighBytes - 15}, bytes));
  EXPECT_FALSE(memory_.load<uint64_t>(GuestAddress{0x80000000}));
}

TEST(GuestMemoryDeathTest, OverlappingRegionsAreABugOfOurs) {
  std::array<std::byte, 16> bytes{};
  EXPECT_DEATH(GuestMemory({{{0}, bytes.data(), 16}, {{8}, bytes.data(), 8}}), "base");
}

}  // namespace
}  // namespace skiff::devices
