// SPDX-License-Identifier: GPL-2.0-or-later
// Devices that are taken out of the bus while vCPUs use it.
#include <gtest/gtest.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "devices/core/bus.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_registers.h"
#include "devices/testing/run_task.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "tests/devices/pci/pci_driver.h"
#include "tests/devices/pci/test_pci_device.h"

namespace skiff::devices {
namespace {

using Removal = PciBus::Removal;

class PciRemovalTest : public PciFixture {
 protected:
  uint8_t add(TestPciDevice& device) { return bus_->add(device).value(); }
};

TEST_F(PciRemovalTest, TakenDeviceIsFoundByNobody) {
  TestPciDevice device;
  ASSERT_EQ(add(device), 1);
  driver_.enable(pci::kCommandMemory | pci::kCommandIo);
  const uint64_t bar = driver_.bar(0);
  EXPECT_EQ(driver_.read_memory(bar, 1), 0x32u);
  device.take_moves();
  bus_->take(1, Removal::kEjected);
  EXPECT_EQ(driver_.config(pci::kVendorId, 4), ~uint32_t{0});
  EXPECT_EQ(driver_.read_memory(bar, 1), 0xffu);
  EXPECT_EQ(device.take_moves().size(), 3u);
  // Whatever a vCPU that was inside still writes.
  const std::array<uint8_t, 2> enable = {pci::kCommandMemory, 0};
  device.config_write(pci::kCommand, enable);
  EXPECT_EQ(device.bar_address(0), std::nullopt);
  EXPECT_TRUE(run_task(device.reset()));
  EXPECT_EQ(device.bar_address(0), std::nullopt);
}

TEST_F(PciRemovalTest, DeviceThatWasPulledOutReadsAsZeroWhereItsBarsWere) {
  TestPciDevice device;
  add(device);
  driver_.enable(pci::kCommandMemory);
  const uint64_t bar = driver_.bar(0);
  bus_->take(1, Removal::kSurprise);
  EXPECT_EQ(driver_.config(pci::kVendorId, 4), ~uint32_t{0});
  EXPECT_EQ(driver_.read_memory(bar, 4), 0u);
  EXPECT_TRUE(driver_.write_memory(bar, 4, 1));
  // The next one that is put there is what answers.
  bus_->release(device);
  TestPciDevice next;
  const PciDriver driver(mmio_, add(next));
  EXPECT_EQ(driver.bar(0), bar);
  driver.enable(pci::kCommandMemory);
  EXPECT_EQ(driver.read_memory(bar, 1), 0x32u);
}

TEST_F(PciRemovalTest, ResetForgetsWhereDevicesWerePulledOut) {
  TestPciDevice device;
  add(device);
  driver_.enable(pci::kCommandMemory);
  const uint64_t bar = driver_.bar(0);
  bus_->take(1, Removal::kSurprise);
  EXPECT_TRUE(run_task(bus_->reset()));
  EXPECT_EQ(driver_.read_memory(bar, 1), 0xffu);
}

TEST_F(PciRemovalTest, SlotThatHasBeenEmptyForLongestIsTakenNext) {
  std::vector<std::unique_ptr<TestPciDevice>> all;
  const auto add_one = [&] {
    all.push_back(std::make_unique<TestPciDevice>());
    return add(*all.back());
  };
  for (uint8_t slot = 1; slot <= 29; ++slot) ASSERT_EQ(add_one(), slot);
  bus_->take(7, Removal::kEjected);
  bus_->take(3, Removal::kEjected);
  EXPECT_EQ(add_one(), 30);  // Never used before.
  EXPECT_EQ(add_one(), 31);
  EXPECT_EQ(add_one(), 3);
  EXPECT_EQ(add_one(), 7);
  TestPciDevice one_more;
  EXPECT_EQ(bus_->add(one_more).error().kind(), loop::ErrorKind::kExhausted);
}

TEST_F(PciRemovalTest, AddressesOfADeviceThatHasGoneAreFreeAgain) {
  // 0x1000'0000 bytes of I/O and memory windows would be used up by far fewer.
  for (int i = 0; i < 1000; ++i) {
    TestPciDevice device;
    const auto slot = bus_->add(device);
    ASSERT_TRUE(slot) << i;
    bus_->take(*slot, Removal::kEjected);
    bus_->release(device);
  }
}

// vCPUs use a slot all the time, as a careless guest does, while devices come and go there. A
// device is destroyed when each vCPU has come out of what it was doing.
TEST_F(PciRemovalTest, VcpusAndRemovalsDoNotMeet) {
  constexpr size_t kVcpus = 2;
  constexpr int kRounds = 200;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> found{0};
  std::atomic<uint8_t> target{1};
  std::array<std::atomic<uint64_t>, kVcpus> outside{};  // As often as a vCPU went to the guest.
  std::vector<loop::Thread> vcpus;
  for (std::atomic<uint64_t>& count : outside)
    vcpus.push_back(*loop::Thread::create({}, [&] {
      while (!stop.load()) {
        const PciDriver driver(mmio_, target.load());
        if (driver.config(pci::kVendorId, 2) == 0x1234) found.fetch_add(1);
        driver.enable(pci::kCommandMemory);
        driver.read_memory(driver.bar(0), 4);
        const uint64_t turns = count.fetch_add(1);
        if (turns % 3 == 0) driver.disable(pci::kCommandMemory);
        // There may be fewer processors than threads.
        if (turns % 16 == 0) sched_yield();
      }
    }));
  const auto wait_until_all_were_outside = [&outside] {
    for (const std::atomic<uint64_t>& count : outside)
      // Two: the first may have begun before.
      for (const uint64_t seen = count.load(); count.load() < seen + 2;) sched_yield();
  };
  for (int round = 0; round < kRounds; ++round) {
    auto device = std::make_unique<TestPciDevice>();
    const uint8_t slot = bus_->add(*device).value();
    target = slot;
    if (round % 4 != 0) wait_until_all_were_outside();
    bus_->take(slot, round % 2 == 0 ? Removal::kEjected : Removal::kSurprise);
    wait_until_all_were_outside();
    bus_->release(*device);
    device.reset();
  }
  stop = true;
  for (loop::Thread& vcpu : vcpus) vcpu.join();
  EXPECT_GT(found.load(), 0u);
}

}  // namespace
}  // namespace skiff::devices
