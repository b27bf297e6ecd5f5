// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/memory_map.h"

#include <gmock/gmock.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"

namespace skiff::firmware {
namespace {

using ::testing::ElementsAre;

E820Entry ram(uint64_t begin, uint64_t end) { return {{begin}, end - begin, E820Type::kRam}; }
E820Entry reserved(uint64_t begin, uint64_t end) {
  return {{begin}, end - begin, E820Type::kReserved};
}

// Only the map is looked at: nobody touches the bytes.
devices::GuestMemory memory_of(std::vector<devices::GuestRegion> regions) {
  return devices::GuestMemory(std::move(regions));
}

TEST(MemoryMapTest, LowMemoryHasTheBiosHole) {
  EXPECT_THAT(make_memory_map(memory_of({{{0}, nullptr, 64 << 20}}), {}),
              ElementsAre(ram(0, 0x9fc00), reserved(0x9fc00, 0x100000), ram(0x100000, 64 << 20)));
}

TEST(MemoryMapTest, EcamIsReservedBetweenLowAndHighMemory) {
  constexpr uint64_t kLowEnd = 0xc0000000;
  constexpr uint64_t kHigh = uint64_t{4} << 30;
  const std::vector<MemoryRange> ecam = {{{0xe0000000}, 0x10000000}};
  EXPECT_THAT(
      make_memory_map(memory_of({{{0}, nullptr, kLowEnd}, {{kHigh}, nullptr, kHigh}}), ecam),
      ElementsAre(ram(0, 0x9fc00), reserved(0x9fc00, 0x100000), ram(0x100000, kLowEnd),
                  reserved(0xe0000000, 0xf0000000), ram(kHigh, 2 * kHigh)));
}

TEST(MemoryMapTest, ReservedRangesAreCutOutOfRamAndJoined) {
  const std::vector<MemoryRange> ranges = {
      {{0x300000}, 0x1000}, {{0x300800}, 0x1000}, {{0x3ff000}, 0x10000}, {{0x200000}, 0}};
  EXPECT_THAT(make_memory_map(memory_of({{{0}, nullptr, 4 << 20}}), ranges),
              ElementsAre(ram(0, 0x9fc00), reserved(0x9fc00, 0x100000), ram(0x100000, 0x300000),
                          reserved(0x300000, 0x301800), ram(0x301800, 0x3ff000),
                          reserved(0x3ff000, 0x40f000)));
}

TEST(MemoryMapTest, ReservedRangeThatWrapsEndsAtTheTop) {
  const std::vector<MemoryRange> ranges = {{{0x200000}, UINT64_MAX}};
  EXPECT_THAT(make_memory_map(memory_of({{{0}, nullptr, 4 << 20}}), ranges),
              ElementsAre(ram(0, 0x9fc00), reserved(0x9fc00, 0x100000), ram(0x100000, 0x200000),
                          reserved(0x200000, UINT64_MAX)));
}

}  // namespace
}  // namespace skiff::firmware
