// SPDX-License-Identifier: GPL-2.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <random>

#include "devices/pci/pci_registers.h"
#include "devices/testing/run_task.h"
#include "loop/thread.h"
#include "tests/devices/pci/test_pci_device.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

class PciDeviceTest : public PciFixture {
 protected:
  TestPciDevice& device_ = add_device();
};

TEST_F(PciDeviceTest, IdentityCannotBeWritten) {
  for (uint32_t offset = 0; offset < 0x1000; offset += 4) {
    if (offset >= pci::kCommand && offset < pci::kRevision) continue;
    driver_.set_config(offset, 4, 0);
  }
  EXPECT_EQ(driver_.config(pci::kVendorId, 4), 0x5678'1234u);
  EXPECT_EQ(driver_.config(pci::kRevision, 4), 0xff00'0003u);
  EXPECT_EQ(driver_.config(0x100, 4), 0u);  // No extended capabilities.
  EXPECT_EQ(driver_.config(0xffe, 2), 0u);
}

TEST_F(PciDeviceTest, AccessPastTheEndOfTheSpaceDoesNotReachTheNextFunction) {
  EXPECT_EQ(driver_.config(0xffe, 4), 0xffff'0000u);
  driver_.set_config(0xffe, 4, ~uint32_t{0});
  EXPECT_EQ(driver_.config(0xffc, 4), 0u);
}

TEST_F(PciDeviceTest, SizingShowsEachBarsSizeAndLeavesItWhereItWas) {
  EXPECT_EQ(driver_.size_bar(0), 0x1000u);
  EXPECT_EQ(driver_.size_bar(1), 0x10000u);
  EXPECT_EQ(driver_.size_bar(3) & 0xffff'ffff, 0x20u);
  EXPECT_EQ(driver_.size_bar(4) & 0xffff'ffff, 0u);  // There is none.
  EXPECT_EQ(driver_.bar(1), 0x10'0000'0000u);
  EXPECT_EQ(driver_.bar_register(1) & 0xf, pci::kBarMemory64);
  EXPECT_EQ(driver_.bar_register(3) & 3, pci::kBarIo);
}

TEST_F(PciDeviceTest, SizingWhileDecodingIsOnEndsWhereItBegan) {
  driver_.enable(pci::kCommandMemory | pci::kCommandIo);
  EXPECT_EQ(driver_.size_bar(0), 0x1000u);
  EXPECT_EQ(driver_.size_bar(1), 0x10000u);
  EXPECT_EQ(driver_.read_memory(0xc000'0000, 1), 0x32u);
  EXPECT_EQ(driver_.read_memory(0x10'0000'0000, 1), 0x64u);
}

TEST_F(PciDeviceTest, MovedBarAnswersAtItsNewAddressOnly) {
  driver_.enable(pci::kCommandMemory);
  device_.take_moves();
  driver_.set_bar_register(0, 0xc800'0123);  // The low bits are not the guest's.
  EXPECT_EQ(driver_.bar_register(0), 0xc800'0000u);
  EXPECT_EQ(driver_.read_memory(0xc800'0ff8, 8), 0x3232'3232'3232'3232u);
  EXPECT_FALSE(driver_.write_memory(0xc000'0000, 4, 0));
  EXPECT_THAT(device_.take_moves(),
              ElementsAre(Pair(0, std::nullopt), Pair(0, std::optional<uint64_t>(0xc800'0000))));
  driver_.disable(pci::kCommandMemory);
  EXPECT_FALSE(driver_.write_memory(0xc800'0000, 4, 0));
}

TEST_F(PciDeviceTest, BarAtZeroAnswersNowhere) {
  driver_.enable(pci::kCommandMemory);
  driver_.set_bar_register(0, 0);
  EXPECT_EQ(device_.bar_address(0), std::nullopt);
  EXPECT_FALSE(driver_.write_memory(0, 4, 0));
}

TEST_F(PciDeviceTest, BarAtTheTopOfTheAddressSpaceDoesNotWrap) {
  driver_.enable(pci::kCommandMemory);
  driver_.set_bar64(1, 0xffff'ffff'fffe'0000);
  EXPECT_EQ(device_.bar_address(1), 0xffff'ffff'fffe'0000u);
  EXPECT_EQ(driver_.read_memory(0xffff'ffff'fffe'fff8, 8), 0x6464'6464'6464'6464u);
  driver_.set_bar64(1, ~uint64_t{0});  // The sizing pattern is no address.
  EXPECT_EQ(device_.bar_address(1), std::nullopt);
}

TEST_F(PciDeviceTest, BarOverAnotherRangeStaysAwayUntilItIsMovedOff) {
  driver_.enable(pci::kCommandMemory);
  device_.take_moves();
  driver_.set_bar_register(0, PciDriver::kEcamBase + 0x8000);  // On its own configuration space.
  EXPECT_EQ(device_.bar_address(0), std::nullopt);
  EXPECT_EQ(driver_.config(pci::kVendorId, 2), 0x1234u);  // Which still answers.
  EXPECT_THAT(device_.take_moves(), ElementsAre(Pair(0, std::nullopt)));
  driver_.set_bar64(1, 0xc000'0000);  // Where BAR 0 was: free now.
  EXPECT_EQ(device_.bar_address(1), 0xc000'0000u);
  driver_.set_bar_register(0, 0xc000'0000);
  EXPECT_EQ(device_.bar_address(0), std::nullopt);
  driver_.set_bar_register(0, 0xc001'0000);
  EXPECT_EQ(device_.bar_address(0), 0xc001'0000u);
}

TEST_F(PciDeviceTest, BarsTradePlacesWhenDecodingComesBack) {
  driver_.enable(pci::kCommandMemory);
  driver_.disable(pci::kCommandMemory);
  driver_.set_bar64(1, 0xc000'0000);
  driver_.set_bar_register(0, 0xc100'0000);
  driver_.enable(pci::kCommandMemory);
  EXPECT_EQ(driver_.read_memory(0xc000'0000, 1), 0x64u);
  EXPECT_EQ(driver_.read_memory(0xc100'0000, 1), 0x32u);
}

TEST_F(PciDeviceTest, UnchangedRegistersMoveNothing) {
  driver_.enable(pci::kCommandMemory);
  device_.take_moves();
  driver_.enable(pci::kCommandBusMaster);
  driver_.set_bar_register(0, 0xc000'0000);
  EXPECT_THAT(device_.take_moves(), IsEmpty());
}

TEST_F(PciDeviceTest, MsixIsEnabledThroughItsCapability) {
  const uint16_t at = *driver_.find_capability(pci::kCapabilityMsix);
  EXPECT_EQ(driver_.config(at + 2u, 2), 3u);  // Table size minus one.
  EXPECT_EQ(driver_.config(at + 4u, 4), 0u);
  EXPECT_EQ(driver_.config(at + 8u, 4), 0x800u);
  driver_.set_config(at + 2u, 2, 0xffff);
  EXPECT_EQ(driver_.config(at + 2u, 2), 0xc003u);
  EXPECT_TRUE(device_.msix().is_enabled());
  driver_.set_config(at + 3u, 1, 0);  // The upper byte alone.
  EXPECT_FALSE(device_.msix().is_enabled());
}

TEST_F(PciDeviceTest, ResetTurnsDecodingAndMsixOffAndPutsTheBarsBack) {
  driver_.enable(pci::kCommandMemory);
  driver_.set_bar_register(0, 0xc800'0000);
  driver_.set_msix_control(pci::kMsixEnable);
  EXPECT_TRUE(run_task(device_.reset()));
  EXPECT_EQ(driver_.config(pci::kCommand, 2), 0u);
  EXPECT_EQ(driver_.bar(0), 0xc000'0000u);
  EXPECT_EQ(device_.bar_address(0), std::nullopt);
  EXPECT_FALSE(device_.msix().is_enabled());
}

// However vCPUs race to move a BAR, it ends where the register says.
TEST_F(PciDeviceTest, BarMovedByManyVcpusEndsWhereItsRegisterSays) {
  driver_.enable(pci::kCommandMemory);
  const auto move = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 500; ++i) {
      driver_.set_bar_register(0, 0xc000'0000 + static_cast<uint32_t>(random() % 16) * 0x1000);
      driver_.set_config(pci::kCommand, 2, random() % 4 == 0 ? 0 : pci::kCommandMemory);
      driver_.set_msix_control(random() % 2 == 0 ? 0 : pci::kMsixEnable);
      driver_.read_memory(0xc000'0000 + (random() % 16) * 0x1000, 4);
    }
  };
  {
    loop::Thread one = loop::Thread::create({.name = "vcpu-1"}, [&] { move(1); }).value();
    loop::Thread two = loop::Thread::create({.name = "vcpu-2"}, [&] { move(2); }).value();
  }
  const bool is_on = (driver_.config(pci::kCommand, 2) & pci::kCommandMemory) != 0;
  const std::optional<uint64_t> mapped = device_.bar_address(0);
  EXPECT_EQ(mapped.has_value(), is_on);
  if (is_on) {
    EXPECT_EQ(mapped, driver_.bar(0));
  }
  driver_.enable(pci::kCommandMemory);
  const uint16_t at = *driver_.find_capability(pci::kCapabilityMsix);
  EXPECT_EQ(device_.msix().is_enabled(), (driver_.config(at + 2u, 2) & pci::kMsixEnable) != 0);
}

}  // namespace
}  // namespace skiff::devices
