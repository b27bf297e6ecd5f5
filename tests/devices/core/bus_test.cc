// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/core/bus.h"

#include <gmock/gmock.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/byte_registers.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;

class RecordingDevice final : public BusDevice {
 public:
  explicit RecordingDevice(uint8_t its_answer = 0) : answer(its_answer) {}
  void bus_read(uint64_t offset, std::span<uint8_t> data) override {
    offsets.push_back(offset);
    for (uint8_t& byte : data) byte = answer;
  }
  void bus_write(uint64_t offset, std::span<const uint8_t> data) override {
    offsets.push_back(offset);
    last_write = load_le(data);
  }

  uint8_t answer;
  std::vector<uint64_t> offsets;
  uint64_t last_write = 0;
};

uint64_t read(const AddressBus& bus, uint64_t address, size_t size) {
  std::array<uint8_t, 8> data{};
  const auto used = std::span(data).first(size);
  bus.read(address, used);
  return load_le(used);
}

TEST(AddressBusTest, AccessReachesItsDeviceWithTheOffsetInItsRange) {
  PioBus bus;
  RecordingDevice low(0x11);
  RecordingDevice high(0x22);
  ASSERT_TRUE(bus.add(0x100, 8, low));
  ASSERT_TRUE(bus.add(0x108, 8, high));
  EXPECT_EQ(read(bus, 0x107, 1), 0x11u);
  EXPECT_EQ(read(bus, 0x108, 1), 0x22u);
  EXPECT_EQ(read(bus, 0x10c, 4), 0x22222222u);
  EXPECT_THAT(low.offsets, ElementsAre(7));
  EXPECT_THAT(high.offsets, ElementsAre(0, 4));
}

TEST(AddressBusTest, NobodyThereReadsAllOnesAndTakesNoWrite) {
  MmioBus bus;
  RecordingDevice device;
  ASSERT_TRUE(bus.add(0x1000, 0x10, device));
  EXPECT_EQ(read(bus, 0xfff, 1), 0xffu);
  EXPECT_EQ(read(bus, 0x1010, 2), 0xffffu);
  const std::array<uint8_t, 1> byte = {1};
  EXPECT_FALSE(bus.write(0x1010, byte));
  EXPECT_TRUE(device.offsets.empty());
}

TEST(AddressBusTest, AccessAcrossTheEndOfARangeIsNobodys) {
  PioBus bus;
  RecordingDevice device;
  ASSERT_TRUE(bus.add(0x64, 1, device));
  EXPECT_EQ(read(bus, 0x64, 2), 0xffffu);
  EXPECT_TRUE(device.offsets.empty());
}

TEST(AddressBusTest, OverlappingEmptyAndWrappingRangesAreRefused) {
  MmioBus bus;
  RecordingDevice device;
  ASSERT_TRUE(bus.add(0x1000, 0x100, device));
  EXPECT_EQ(bus.add(0x10ff, 1, device).error().kind(), loop::ErrorKind::kBusy);
  EXPECT_EQ(bus.add(0xfff, 2, device).error().kind(), loop::ErrorKind::kBusy);
  EXPECT_EQ(bus.add(0x0, 0x2000, device).error().kind(), loop::ErrorKind::kBusy);
  EXPECT_EQ(bus.add(0x1050, 8, device).error().kind(), loop::ErrorKind::kBusy);
  EXPECT_EQ(bus.add(0x5000, 0, device).error().kind(), loop::ErrorKind::kInvalidArgument);
  EXPECT_EQ(bus.add(std::numeric_limits<uint64_t>::max(), 2, device).error().kind(),
            loop::ErrorKind::kInvalidArgument);
  EXPECT_TRUE(bus.add(0x1100, 1, device));
  EXPECT_TRUE(bus.add(0xfff, 1, device));
}

TEST(AddressBusTest, TopmostByteOfTheAddressSpaceCanBeUsed) {
  MmioBus bus;
  RecordingDevice device(0x5a);
  ASSERT_TRUE(bus.add(std::numeric_limits<uint64_t>::max(), 1, device));
  EXPECT_EQ(read(bus, std::numeric_limits<uint64_t>::max(), 1), 0x5au);
}

TEST(AddressBusTest, RemovedRangeIsGoneAndCanBeTakenAgain) {
  MmioBus bus;
  RecordingDevice first(1);
  RecordingDevice second(2);
  ASSERT_TRUE(bus.add(0x1000, 4, first));
  bus.remove(0x1000);
  EXPECT_EQ(read(bus, 0x1000, 1), 0xffu);
  ASSERT_TRUE(bus.add(0x1000, 4, second));
  EXPECT_EQ(read(bus, 0x1000, 1), 2u);
  bus.remove(0x1002);  // Nothing begins there.
  EXPECT_EQ(read(bus, 0x1000, 1), 2u);
}

TEST(AddressBusTest, PlaceholderAnswersUntilSomebodyElseComes) {
  MmioBus bus;
  RecordingDevice gone(0);
  RecordingDevice device(7);
  bus.add_placeholder(0x1000, 0x100, gone);
  EXPECT_EQ(read(bus, 0x1080, 1), 0u);
  ASSERT_TRUE(bus.add(0x10ff, 1, device));  // Any part of it.
  EXPECT_EQ(read(bus, 0x1080, 1), 0xffu);
  EXPECT_EQ(read(bus, 0x10ff, 1), 7u);

  bus.add_placeholder(0x1000, 0x200, gone);  // Somebody is there.
  EXPECT_EQ(read(bus, 0x1000, 1), 0xffu);
  bus.add_placeholder(0x2000, 0x100, gone);
  ASSERT_TRUE(bus.add(0x1f00, 0x1000, device));
  EXPECT_EQ(read(bus, 0x2000, 1), 7u);
  bus.add_placeholder(0x4000, 0x100, gone);
  bus.add_placeholder(0x5000, 0x100, gone);
  ASSERT_TRUE(bus.add(0x4100, 0x100, device));
  EXPECT_EQ(read(bus, 0x4000, 1), 0u);
  bus.remove_placeholders();
  EXPECT_EQ(read(bus, 0x4000, 1), 0xffu);
  EXPECT_EQ(read(bus, 0x5000, 1), 0xffu);
  EXPECT_EQ(read(bus, 0x4100, 1), 7u);
}

// A PCI BAR moves from inside the write that changes it.
class MovingDevice final : public BusDevice {
 public:
  explicit MovingDevice(AddressBus& bus) : bus_(bus) {}
  void bus_read(uint64_t, std::span<uint8_t> data) override { data[0] = 0x77; }
  void bus_write(uint64_t, std::span<const uint8_t>) override {
    bus_.remove(0x1000);
    EXPECT_TRUE(bus_.add(0x2000, 4, *this));
  }

 private:
  AddressBus& bus_;
};

TEST(AddressBusTest, DeviceMovesItselfFromInsideAWrite) {
  MmioBus bus;
  MovingDevice device(bus);
  ASSERT_TRUE(bus.add(0x1000, 4, device));
  const std::array<uint8_t, 1> byte = {1};
  EXPECT_TRUE(bus.write(0x1000, byte));
  EXPECT_EQ(read(bus, 0x1000, 1), 0xffu);
  EXPECT_EQ(read(bus, 0x2000, 1), 0x77u);
}

TEST(LittleEndianTest, LoadAndStoreAreEachOthersInverseAtEverySize) {
  for (size_t size = 1; size <= 8; ++size) {
    std::array<uint8_t, 8> data{};
    const auto used = std::span(data).first(size);
    store_le(used, 0x8877665544332211);
    const uint64_t mask = size == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1;
    EXPECT_EQ(load_le(used), 0x8877665544332211 & mask);
  }
}

class CountingRegisters final : public ByteRegisters {
 public:
  std::vector<std::pair<uint64_t, uint8_t>> writes;

 private:
  uint8_t read_register(uint64_t offset) override { return static_cast<uint8_t>(offset + 1); }
  void write_register(uint64_t offset, uint8_t value) override {
    writes.emplace_back(offset, value);
  }
};

TEST(ByteRegistersTest, WideAccessBecomesByteCyclesLowestAddressFirst) {
  CountingRegisters registers;
  std::array<uint8_t, 4> data{};
  registers.bus_read(2, data);
  EXPECT_THAT(data, ElementsAre(3, 4, 5, 6));
  const std::array<uint8_t, 2> written = {0xaa, 0xbb};
  registers.bus_write(0, written);
  EXPECT_THAT(registers.writes, ElementsAre(std::pair(0, 0xaa), std::pair(1, 0xbb)));
}

}  // namespace
}  // namespace skiff::devices
