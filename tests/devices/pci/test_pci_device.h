// SPDX-License-Identifier: GPL-2.0-or-later
// TestPciDevice: a PCI function with one BAR of each kind, and a fixture with it on a bus.
//
// Thread: the test's. Ownership: the fixture owns all.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_device.h"
#include "devices/testing/fake_msi.h"
#include "tests/devices/pci/pci_driver.h"

namespace skiff::devices {

// Reads as its fill value.
class TestRegisters final : public BusDevice {
 public:
  explicit TestRegisters(uint8_t fill) : fill_(fill) {}
  void bus_read(uint64_t /*offset_bytes*/, std::span<uint8_t> data) override {
    std::ranges::fill(data, fill_);
  }
  void bus_write(uint64_t /*offset_bytes*/, std::span<const uint8_t> /*data*/) override {}

 private:
  const uint8_t fill_;
};

class TestPciDevice final : public PciDevice {
 public:
  static constexpr uint64_t kSizeBytes = 0x1000;

  TestPciDevice()
      : PciDevice(
            "test",
            {.vendor_id = 0x1234, .device_id = 0x5678, .revision = 3, .class_code = 0xff0000}) {
    add_bar(0, {.kind = PciBarKind::kMemory32, .size_bytes = kSizeBytes, .registers = &memory32_});
    add_bar(
        1, {.kind = PciBarKind::kMemory64, .size_bytes = 16 * kSizeBytes, .registers = &memory64_});
    add_bar(3, {.kind = PciBarKind::kIo, .size_bytes = 0x20, .registers = &io_});
    add_msix(msix_, {.bar = 0, .table_offset_bytes = 0, .pending_offset_bytes = 0x800});
  }

  loop::Task<void> reset() override {
    reset_config();
    co_return;
  }
  void on_bar_moved(uint8_t index, std::optional<uint64_t> address) override {
    moves_.emplace_back(index, address);
  }
  std::vector<std::pair<uint8_t, std::optional<uint64_t>>> take_moves() {
    return std::exchange(moves_, {});
  }
  Msix& msix() { return msix_; }

 private:
  TestRegisters memory32_{0x32};
  TestRegisters memory64_{0x64};
  TestRegisters io_{0x10};
  FakeMsiSink sink_;
  Msix msix_{sink_, 4, "test"};
  std::vector<std::pair<uint8_t, std::optional<uint64_t>>> moves_;
};

class PciFixture : public ::testing::Test {
 protected:
  PciFixture() {
    bus_ = *PciBus::create(mmio_, pio_,
                           {.ecam_base = PciDriver::kEcamBase,
                            .memory32 = PciWindow(0xc000'0000, 0x1000'0000),
                            .memory64 = PciWindow(0x10'0000'0000, 0x1'0000'0000),
                            .io = PciWindow(0xd000, 0x1000)});
    pio_.add(PciBus::kConfigPorts, PciBus::kConfigPortCount, bus_->config_ports()).value();
  }

  TestPciDevice& add_device() {
    devices_.push_back(std::make_unique<TestPciDevice>());
    bus_->add(*devices_.back()).value();
    return *devices_.back();
  }

  MmioBus mmio_;
  PioBus pio_;
  std::unique_ptr<PciBus> bus_;
  std::vector<std::unique_ptr<TestPciDevice>> devices_;
  PciDriver driver_{mmio_, 1};  // Of the first device that is added.
};

}  // namespace skiff::devices
