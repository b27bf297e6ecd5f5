// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/pci_hotplug.h"

#include <gmock/gmock.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/core/bus.h"
#include "devices/testing/run_task.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kCheck = 0, kAsk = 4, kEject = 8, kGone = 12;

class PciHotplugTest : public ::testing::Test {
 protected:
  uint32_t in(uint64_t offset, size_t size = 4) {
    std::array<uint8_t, 8> data{};
    hotplug_.bus_read(offset, std::span(data).first(size));
    return static_cast<uint32_t>(load_le(std::span(data).first(size)));
  }
  void out(uint64_t offset, uint32_t value, size_t size = 4) {
    std::array<uint8_t, 8> data{};
    store_le(data, value);
    hotplug_.bus_write(offset, std::span(data).first(size));
  }

  int events_ = 0;
  std::vector<uint8_t> ejected_;
  PciHotplug hotplug_{{.raise_event = [this] { ++events_; },
                       .ejected = [this](uint8_t slot) { ejected_.push_back(slot); }}};
};

TEST_F(PciHotplugTest, NewDeviceIsToldUntilTheGuestHasReadIt) {
  hotplug_.announce(3);
  EXPECT_EQ(events_, 1);
  EXPECT_EQ(in(kCheck), 8u);
  EXPECT_EQ(in(kCheck), 8u);  // Reading changes nothing.
  hotplug_.announce(31);
  out(kCheck, 8);
  EXPECT_EQ(in(kCheck), uint32_t{1} << 31);
  EXPECT_EQ(in(kEject), uint32_t{1} << 31 | 8u);
}

TEST_F(PciHotplugTest, DeviceThatTheGuestBootsWithIsNotAnnounced) {
  hotplug_.allow_eject(2);
  EXPECT_EQ(events_, 0);
  EXPECT_EQ(in(kCheck), 0u);
  EXPECT_EQ(in(kEject), 4u);
}

TEST_F(PciHotplugTest, EjectingEmptiesTheSlotOnce) {
  hotplug_.announce(1);
  hotplug_.announce(2);
  hotplug_.ask_for(2);
  EXPECT_EQ(events_, 3);
  EXPECT_EQ(in(kAsk), 4u);
  out(kAsk, 4);
  out(kEject, 4);
  out(kEject, 4);
  EXPECT_THAT(ejected_, ElementsAre(2));
  EXPECT_EQ(in(kEject), 2u);
  EXPECT_EQ(in(kCheck), 2u);
}

TEST_F(PciHotplugTest, OnlyWhatMayGoGoes) {
  hotplug_.announce(4);
  out(kEject, ~uint32_t{1u << 4});
  EXPECT_THAT(ejected_, IsEmpty());
  out(kEject, ~uint32_t{0});
  EXPECT_THAT(ejected_, ElementsAre(4));
}

TEST_F(PciHotplugTest, AskingForAnEmptySlotIsNothing) {
  hotplug_.ask_for(5);
  EXPECT_EQ(events_, 0);
  EXPECT_EQ(in(kAsk), 0u);
}

TEST_F(PciHotplugTest, GuestAndMachineCannotBothTakeADevice) {
  hotplug_.announce(6);
  EXPECT_TRUE(hotplug_.forbid_eject(6));
  EXPECT_FALSE(hotplug_.forbid_eject(6));
  out(kEject, 1u << 6);
  EXPECT_THAT(ejected_, IsEmpty());
  hotplug_.announce_gone();
  EXPECT_EQ(in(kGone), 1u);
  EXPECT_EQ(in(kCheck), 0u);
  out(kGone, 1);
  EXPECT_EQ(in(kGone), 0u);
}

TEST_F(PciHotplugTest, ResetForgetsTheNewsButNotTheDevices) {
  hotplug_.announce(7);
  hotplug_.ask_for(7);
  hotplug_.announce_gone();
  EXPECT_TRUE(run_task(hotplug_.reset()));
  EXPECT_EQ(in(kCheck), 0u);
  EXPECT_EQ(in(kAsk), 0u);
  EXPECT_EQ(in(kGone), 0u);
  EXPECT_EQ(in(kEject), 1u << 7);
}

TEST_F(PciHotplugTest, OtherSizesAndOffsetsAreNobodys) {
  hotplug_.announce(1);
  for (uint64_t offset = 0; offset < PciHotplug::kSizeBytes; ++offset)
    for (const size_t size : {1u, 2u, 4u, 8u}) {
      if (size == 4 && offset % 4 == 0) continue;
      EXPECT_EQ(in(offset, size) & 0xff, 0xffu);
      out(offset, ~uint32_t{0}, size);
    }
  EXPECT_THAT(ejected_, IsEmpty());
  EXPECT_EQ(in(kCheck), 2u);
}

}  // namespace
}  // namespace skiff::devices
