// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/pci_bus.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/core/bus.h"
#include "devices/pci/pci_registers.h"
#include "devices/testing/run_task.h"
#include "loop/result.h"
#include "tests/devices/pci/pci_driver.h"
#include "tests/devices/pci/test_pci_device.h"

namespace skiff::devices {
namespace {

class PciBusTest : public PciFixture {
 protected:
  uint32_t read_port(uint64_t port, uint32_t size) {
    std::array<uint8_t, 8> data{};
    pio_.read(port, std::span(data).first(size));
    return static_cast<uint32_t>(load_le(std::span(data).first(size)));
  }
  void write_port(uint64_t port, uint32_t size, uint32_t value) {
    std::array<uint8_t, 8> data{};
    store_le(data, value);
    pio_.write(port, std::span(data).first(size));
  }
};

TEST_F(PciBusTest, HostBridgeIsAtSlotZero) {
  const PciDriver bridge(mmio_, 0);
  EXPECT_EQ(bridge.config(pci::kVendorId, 4), 0x0008'1b36u);
  EXPECT_EQ(bridge.config(pci::kRevision, 4) >> 8, pci::kClassHostBridge);
  EXPECT_EQ(bridge.config(pci::kInterruptPin, 1), 0u);
  EXPECT_TRUE(bridge.capabilities().empty());
}

TEST_F(PciBusTest, EmptySlotsFunctionsAndOtherBusesReadAllOnes) {
  EXPECT_EQ(PciDriver(mmio_, 5).config(pci::kVendorId, 2), 0xffffu);
  const PciDriver bridge(mmio_, 0);
  EXPECT_EQ(bridge.config(0x1000, 4), 0xffff'ffffu);  // Function 1.
  write_port(0xcf8, 4, 0x8000'0100);                  // The same by port.
  EXPECT_EQ(read_port(0xcfc, 4), 0xffff'ffffu);
  write_port(0xcf8, 4, 0x8001'0000);  // Bus 1.
  EXPECT_EQ(read_port(0xcfc, 4), 0xffff'ffffu);
  write_port(0xcf8, 4, 0x0000'0000);  // Not enabled.
  EXPECT_EQ(read_port(0xcfc, 4), 0xffff'ffffu);
}

TEST_F(PciBusTest, PortsAndEcamShowTheSameRegisters) {
  TestPciDevice& device = add_device();
  (void)device;
  write_port(0xcf8, 4, 0x8000'0800);
  EXPECT_EQ(read_port(0xcf8, 4), 0x8000'0800u);
  EXPECT_EQ(read_port(0xcfc, 4), 0x5678'1234u);
  EXPECT_EQ(read_port(0xcfe, 2), 0x5678u);
  EXPECT_EQ(read_port(0xcfd, 1), 0x12u);
  write_port(0xcf8, 4, 0x8000'083c);
  write_port(0xcfc, 1, 0x5a);
  EXPECT_EQ(driver_.config(pci::kInterruptLine, 1), 0x5au);
  // Narrow accesses of the address register are not for it.
  write_port(0xcf9, 1, 0x06);
  EXPECT_EQ(read_port(0xcf8, 4), 0x8000'083cu);
}

TEST_F(PciBusTest, BarsArePlacedWithinTheirWindowsAndDecodeOnlyWhenEnabled) {
  TestPciDevice& device = add_device();
  EXPECT_EQ(driver_.bar(0), 0xc000'0000u);
  EXPECT_EQ(driver_.bar(1), 0x10'0000'0000u);
  EXPECT_EQ(driver_.bar(3), 0xd000u);
  EXPECT_EQ(device.bar_address(0), std::nullopt);
  driver_.enable(pci::kCommandMemory);
  EXPECT_EQ(device.bar_address(0), 0xc000'0000u);
  EXPECT_EQ(device.bar_address(1), 0x10'0000'0000u);
  EXPECT_EQ(device.bar_address(3), std::nullopt);
  driver_.enable(pci::kCommandIo);
  EXPECT_EQ(device.bar_address(3), 0xd000u);
}

TEST_F(PciBusTest, SixtyFourBitBarGoesBelowFourGigabytesWithoutAnotherWindow) {
  MmioBus mmio;
  PioBus pio;
  auto bus = PciBus::create(mmio, pio,
                            {.ecam_base = PciDriver::kEcamBase,
                             .memory32 = PciWindow(0xc000'0000, 0x10'0000),
                             .io = PciWindow(0xd000, 0x1000)});
  ASSERT_TRUE(bus);
  TestPciDevice device;
  ASSERT_TRUE((*bus)->add(device));
  EXPECT_EQ(PciDriver(mmio, 1).bar(1), 0xc001'0000u);
}

TEST_F(PciBusTest, FullWindowAndFullBusAreErrorsThatSayWhat) {
  MmioBus mmio;
  PioBus pio;
  auto bus = PciBus::create(
      mmio, pio, {.ecam_base = PciDriver::kEcamBase, .memory32 = PciWindow(0xc000'0000, 0x800)});
  ASSERT_TRUE(bus);
  TestPciDevice device;
  const auto added = (*bus)->add(device);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().kind(), loop::ErrorKind::kExhausted);

  for (int i = 1; i < 32; ++i) add_device();
  TestPciDevice one_more;
  const auto refused = bus_->add(one_more);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("All 31"), std::string::npos);
}

TEST_F(PciBusTest, SecondBusAtTheSameAddressIsRefusedAndLeavesTheFirstAlone) {
  EXPECT_FALSE(PciBus::create(mmio_, pio_, {.ecam_base = PciDriver::kEcamBase}));
  EXPECT_EQ(PciDriver(mmio_, 0).config(pci::kVendorId, 2), 0x1b36u);
}

TEST_F(PciBusTest, ResetForgetsTheAddressRegister) {
  write_port(0xcf8, 4, 0x8000'0000);
  EXPECT_TRUE(run_task(bus_->reset()));
  EXPECT_EQ(read_port(0xcf8, 4), 0u);
}

TEST(PciWindowTest, AllocationsAreAlignedAndEndAtTheEnd) {
  PciWindow window(0x1000, 0x5000);
  EXPECT_EQ(window.allocate(0x100), 0x1000u);
  EXPECT_EQ(window.allocate(0x2000), 0x2000u);
  EXPECT_EQ(window.allocate(0x4000), std::nullopt);
  EXPECT_EQ(window.allocate(0x2000), 0x4000u);
  EXPECT_EQ(window.allocate(0x1000), std::nullopt);
  EXPECT_EQ(window.allocate(0x100), 0x1100u);  // Beside the first one.
  EXPECT_EQ(PciWindow().allocate(16), std::nullopt);
  PciWindow top(~uint64_t{0} - 0xfff, 0x1000);
  EXPECT_EQ(top.allocate(uint64_t{1} << 63), std::nullopt);
  EXPECT_EQ(top.allocate(0x1000), ~uint64_t{0} - 0xfff);
}

TEST(PciWindowTest, WhatIsReleasedIsHandedOutAgain) {
  PciWindow window(0x1000, 0x3000);
  EXPECT_EQ(window.allocate(0x1000), 0x1000u);
  EXPECT_EQ(window.allocate(0x1000), 0x2000u);
  EXPECT_EQ(window.allocate(0x1000), 0x3000u);
  EXPECT_EQ(window.allocate(0x1000), std::nullopt);
  EXPECT_TRUE(window.release(0x2000));
  EXPECT_FALSE(window.release(0x2000));
  EXPECT_EQ(window.allocate(0x2000), std::nullopt);
  EXPECT_EQ(window.allocate(0x800), 0x2000u);
  EXPECT_EQ(window.allocate(0x800), 0x2800u);
}

}  // namespace
}  // namespace skiff::devices
