// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/acpi/reset_port.h"

#include <gmock/gmock.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "devices/core/bus.h"

namespace skiff::devices {
namespace {

class ConfigAddress final : public BusDevice {
 public:
  void bus_read(uint64_t, std::span<uint8_t> data) override { store_le(data, value); }
  void bus_write(uint64_t, std::span<const uint8_t> data) override { value = load_le(data); }
  uint64_t value = 0;
};

class ResetPortTest : public ::testing::Test {
 protected:
  void out(uint64_t offset, std::initializer_list<uint8_t> data) {
    port_.bus_write(offset, std::span(data.begin(), data.size()));
  }
  ConfigAddress pci_;
  int resets_ = 0;
  ResetPort port_{[this] { ++resets_; }, &pci_};
};

TEST_F(ResetPortTest, OnlyTheResetCpuBitResets) {
  out(1, {0x02});
  EXPECT_EQ(resets_, 0);
  out(1, {0x06});
  EXPECT_EQ(resets_, 1);
  out(1, {0x04});
  EXPECT_EQ(resets_, 2);
}

TEST_F(ResetPortTest, ConfigurationAddressPassesThroughEvenWithTheBitSet) {
  out(0, {0x00, 0x06, 0x00, 0x80});
  EXPECT_EQ(resets_, 0);
  EXPECT_EQ(pci_.value, 0x80000600u);
  std::array<uint8_t, 4> data{};
  port_.bus_read(0, data);
  EXPECT_EQ(load_le(data), 0x80000600u);
}

TEST_F(ResetPortTest, WithNothingBehindTheRestReadsAllOnes) {
  ResetPort alone([] {}, nullptr);
  std::array<uint8_t, 4> data{};
  alone.bus_read(0, data);
  EXPECT_EQ(load_le(data), 0xffffffffu);
  alone.bus_write(0, data);
}

}  // namespace
}  // namespace skiff::devices
