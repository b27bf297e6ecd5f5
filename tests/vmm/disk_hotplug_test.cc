// SPDX-License-Identifier: GPL-2.0-or-later
// Disks that come and go before a driver that follows the rules, or does not, without a machine
// around them.
#include "vmm/disk_hotplug.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "block/io_engine.h"
#include "block/testing/fake_channel.h"
#include "devices/core/bus.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_hotplug.h"
#include "devices/pci/pci_registers.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_msi.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task_scope.h"
#include "loop/testing/manual_loop.h"
#include "tests/devices/pci/pci_driver.h"
#include "tests/temp_dir.h"
#include "tests/vmm/fake_disk_host.h"
#include "tests/vmm/pci_disk_driver.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/field_values.h"
#include "vmm/disk_removal.h"

namespace skiff::vmm {
namespace {

using devices::PciBus;
using devices::PciDriver;
using devices::PciHotplug;
using loop::Result;
using State = DiskPlug::State;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kSecondNs = 1'000'000'000;
class DiskHotplugTest : public ::testing::Test {
 protected:
  DiskHotplugTest() {
    pci_ = *PciBus::create(mmio_, pio_,
                           {.ecam_base = PciDriver::kEcamBase,
                            .memory32 = devices::PciWindow(0xc000'0000, 0x1000'0000),
                            .memory64 = devices::PciWindow(0x10'0000'0000, 0x1'0000'0000)});
    host_ = std::make_unique<FakeDiskHost>(loop_, memory_);
    hotplug_ = std::make_unique<DiskHotplug>(
        DiskHotplug::Surroundings{loop_, *pci_, msi_, doorbells_, *host_, [this] { ++events_; }});
    host_->hotplug = hotplug_.get();
    pio_.add(PciHotplug::kBasePort, PciHotplug::kSizeBytes, hotplug_->registers()).value();
  }
  // Everything must come to an end.
  ~DiskHotplugTest() override {
    host_->visits_vcpus = true;
    while (!host_->disks.empty()) {
      const std::string name(host_->disks.front().device->name());
      remove(name, {.is_forced = true});
      while (!host_->disks.empty() && host_->disks.front().device->name() == name) {
        auto* image = dynamic_cast<block::FakeBackend*>(host_->disks.front().image.get());
        const bool is_open = image != nullptr && image->has_channel();
        SKIFF_CHECK(is_open && image->channel().in_flight() > 0);
        image->channel().complete(0);
        loop_.run_until_idle();
      }
    }
    EXPECT_EQ(doorbells_.attached(), 0u);
  }

  static DiskConfig fake_disk(const std::string& serial = "") {
    DiskConfig config;
    config.path = kFakePath;
    config.serial = serial;
    return config;
  }
  static DiskConfig file_disk(const std::string& path) {
    DiskConfig config;
    config.path = path;
    config.engine = block::IoEngineKind::kSync;
    return config;
  }
  Result<std::string> add(const DiskConfig& config) {
    auto image = host_->open(config);
    if (!image) return image.error();
    return hotplug_->add(config, *std::move(image));
  }
  uint8_t slot_of(const std::string& disk) const { return hotplug_->plug_of(disk)->slot; }
  State state_of(const std::string& disk) const { return hotplug_->plug_of(disk)->state; }
  uint32_t read_port(uint64_t offset) {
    std::array<uint8_t, 4> data{};
    pio_.read(PciHotplug::kBasePort + offset, data);
    return static_cast<uint32_t>(devices::load_le(data));
  }
  // What the guest's _EJ0 does.
  void eject(uint8_t slot) {
    std::array<uint8_t, 4> data{};
    devices::store_le(data, uint32_t{1} << slot);
    pio_.write(PciHotplug::kBasePort + 8, data);
  }
  bool is_found(uint8_t slot) const {
    return PciDriver(mmio_, slot).config(devices::pci::kVendorId, 2) == 0x1af4;
  }
  // Nothing yet, or how it ended.
  struct Answer {
    std::optional<Result<void>> result;
    bool is_ok() const { return result && result->has_value(); }
    std::string error() const {
      return result && !result->has_value() ? result->error().message() : "";
    }
  };
  std::shared_ptr<Answer> remove(const std::string& disk, const DiskRemoval& removal = {}) {
    auto answer = std::make_shared<Answer>();
    hotplug_->remove(disk, removal,
                     [answer](const Result<void>& result) { answer->result = result; });
    loop_.run_until_idle();
    return answer;
  }

  devices::MmioBus mmio_;
  devices::PioBus pio_;
  loop::ManualLoop loop_;
  devices::FakeGuestMemory memory_{8 << 20};
  TempDir directory_;
  int events_ = 0;
  std::string waiting_for_;
  devices::FakeMsiSink msi_;
  devices::FakeDoorbellHub doorbells_;
  std::unique_ptr<PciBus> pci_;
  std::unique_ptr<FakeDiskHost> host_;
  std::unique_ptr<DiskHotplug> hotplug_;
};

TEST_F(DiskHotplugTest, NewDiskIsOnTheBusAndTheGuestIsTold) {
  EXPECT_EQ(add(fake_disk("A")).value(), "disk0");
  EXPECT_EQ(add(fake_disk("B")).value(), "disk1");
  EXPECT_EQ(events_, 2);
  EXPECT_EQ(hotplug_->slots(), 1u << 1 | 1u << 2);
  EXPECT_EQ(read_port(0), hotplug_->slots());
  EXPECT_TRUE(is_found(slot_of("disk1")));
  EXPECT_EQ(state_of("disk1"), State::kPlugged);
  EXPECT_EQ(hotplug_->plug_of("disk2"), std::nullopt);
}

TEST_F(DiskHotplugTest, DiskThatTheGuestEjectsGoesAndItsFileIsFree) {
  const std::string path = directory_.make_sparse("disk", 1 << 20);
  const uint8_t slot = slot_of(add(file_disk(path)).value());
  EXPECT_THAT(add(file_disk(path)).error().message(), HasSubstr("use"));
  const auto answer = remove(path);
  EXPECT_FALSE(answer->result);
  EXPECT_EQ(read_port(4), 1u << slot);
  EXPECT_EQ(state_of("disk0"), State::kAskedFor);
  EXPECT_TRUE(is_found(slot));  // The guest's to decide.
  eject(slot);
  EXPECT_FALSE(is_found(slot));  // When its method ends, at the latest.
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
  EXPECT_THAT(host_->disks, IsEmpty());
  // Again, in another slot.
  const std::string again = add(file_disk(path)).value();
  EXPECT_NE(slot_of(again), slot);
}

TEST_F(DiskHotplugTest, TwentyRoundsLeaveNothingBehind) {
  const std::string path = directory_.make_sparse("disk", 1 << 20);
  for (int round = 0; round < 20; ++round) {
    const auto name = add(file_disk(path));
    ASSERT_TRUE(name) << name.error().message();
    PciDiskDriver driver(mmio_, slot_of(*name), memory_);
    ASSERT_TRUE(driver.start(loop_));
    const auto answer = remove(*name);
    driver.reset(loop_);
    eject(slot_of(*name));
    loop_.run_until_idle();
    ASSERT_TRUE(answer->is_ok());
    EXPECT_EQ(doorbells_.attached(), 0u);
  }
}

TEST_F(DiskHotplugTest, WhatIsInFlightEndsBeforeTheDiskGoes) {
  add(fake_disk()).value();
  const uint8_t slot = slot_of("disk0");
  PciDiskDriver driver(mmio_, slot, memory_);
  ASSERT_TRUE(driver.start(loop_));
  const auto written = driver.offer_write(3, pattern(512));
  driver.offer_write(4, pattern(512, 2));
  driver.kick(doorbells_, loop_);
  block::FakeBackend& image = host_->fake_image();
  ASSERT_EQ(image.channel().in_flight(), 2u);

  const auto answer = remove("disk0");
  eject(slot);  // Without a word to the device before.
  loop_.run_until_idle();
  EXPECT_FALSE(answer->result);
  EXPECT_EQ(state_of("disk0"), State::kLeaving);
  EXPECT_EQ(doorbells_.attached(), 0u);
  image.channel().complete(0);
  loop_.run_until_idle();
  EXPECT_FALSE(answer->result);
  EXPECT_EQ(driver.status(written), 0);
  const auto stored = std::vector(image.bytes().begin() + 3 * 512, image.bytes().begin() + 4 * 512);
  EXPECT_EQ(stored, pattern(512));
  image.channel().complete(0);
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, NothingIsDestroyedBeforeEveryVcpuWasOutside) {
  host_->visits_vcpus = false;
  add(fake_disk()).value();
  const auto answer = remove("disk0", {.is_forced = true});
  EXPECT_EQ(host_->visits_asked, 1);
  EXPECT_FALSE(answer->result);
  EXPECT_EQ(host_->disks.size(), 1u);
  hotplug_->note_vcpus_outside();
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, GuestThatNeverEjectsIsATimeoutThatSaysSoAndForceTakesTheDisk) {
  add(fake_disk()).value();
  const uint8_t slot = slot_of("disk0");
  PciDiskDriver driver(mmio_, slot, memory_);
  ASSERT_TRUE(driver.start(loop_));
  const auto answer = remove("disk0", {.timeout_ns = 2 * kSecondNs});
  loop_.advance_ns(kSecondNs);
  EXPECT_FALSE(answer->result);
  loop_.advance_ns(kSecondNs);
  EXPECT_THAT(answer->error(), HasSubstr("has not given it up within 2 s"));
  EXPECT_THAT(answer->error(), HasSubstr("force"));
  EXPECT_TRUE(is_found(slot));

  const auto forced = remove("disk0", {.is_forced = true});
  EXPECT_TRUE(forced->is_ok());
  EXPECT_FALSE(is_found(slot));
  EXPECT_EQ(read_port(12), 1u);
  // A driver that resets what is not there any more is done with it.
  EXPECT_EQ(driver.device_status(), 0u);
}

TEST_F(DiskHotplugTest, GuestThatEjectsLaterIsStillHeard) {
  add(fake_disk()).value();
  const auto answer = remove("disk0", {.timeout_ns = kSecondNs});
  loop_.advance_ns(kSecondNs);
  EXPECT_FALSE(answer->is_ok());
  eject(slot_of("disk0"));
  loop_.run_until_idle();
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, HostThatDoesNotFinishIsAnotherTimeout) {
  add(fake_disk()).value();
  PciDiskDriver driver(mmio_, slot_of("disk0"), memory_);
  ASSERT_TRUE(driver.start(loop_));
  driver.offer_write(0, pattern(512));
  driver.kick(doorbells_, loop_);
  const auto answer = remove("disk0", {.is_forced = true, .timeout_ns = kSecondNs});
  loop_.advance_ns(kSecondNs);
  EXPECT_THAT(answer->error(), HasSubstr("the host has not finished its requests"));
  // Whoever asks once more waits for the same end.
  const auto again = remove("disk0");
  EXPECT_FALSE(again->result);
  host_->fake_image().channel().complete(0);
  loop_.run_until_idle();
  EXPECT_TRUE(again->is_ok());
}

TEST_F(DiskHotplugTest, TwoWhoRemoveTheSameDiskAreBothAnsweredAndTheThirdIsTooLate) {
  add(fake_disk()).value();
  const auto first = remove("disk0");
  const auto second = remove("disk0");
  eject(slot_of("disk0"));
  loop_.run_until_idle();
  EXPECT_TRUE(first->is_ok());
  EXPECT_TRUE(second->is_ok());
  EXPECT_THAT(remove("disk0")->error(), HasSubstr("No such disk"));
}

TEST_F(DiskHotplugTest, GuestMayEjectWhatNobodyAskedFor) {
  add(fake_disk()).value();
  eject(slot_of("disk0"));
  eject(1);  // And again, and empty slots, and all at once.
  eject(17);
  loop_.run_until_idle();
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, DiskThatIsThereFromTheStartCanGoAsWell) {
  hotplug_->plug_at_boot(**host_->make_disk(fake_disk(), *host_->open(fake_disk()))).value();
  EXPECT_EQ(events_, 0);
  const auto answer = remove("disk0");
  EXPECT_EQ(events_, 1);
  eject(slot_of("disk0"));
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
}

TEST_F(DiskHotplugTest, ResetTakesWhatTheGuestWasAskedForAndKeepsTheOthers) {
  add(fake_disk("A")).value();
  add(fake_disk("B")).value();
  const auto answer = remove("A");
  loop::TaskScope scope(loop_);
  scope.spawn(hotplug_->reset(waiting_for_));
  loop_.run_until_idle();
  EXPECT_EQ(scope.running(), 0u);
  EXPECT_TRUE(answer->is_ok());
  ASSERT_EQ(host_->disks.size(), 1u);
  EXPECT_EQ(host_->disks.front().config.serial, "B");
  EXPECT_TRUE(is_found(slot_of("disk1")));
  EXPECT_EQ(read_port(0) | read_port(4) | read_port(12), 0u);
  EXPECT_EQ(read_port(8), 1u << slot_of("disk1"));
}

TEST_F(DiskHotplugTest, ResetWaitsForADiskThatIsLeaving) {
  host_->visits_vcpus = false;  // The machine is busy with the reset.
  add(fake_disk()).value();
  PciDiskDriver driver(mmio_, slot_of("disk0"), memory_);
  ASSERT_TRUE(driver.start(loop_));
  driver.offer_write(0, pattern(512));
  driver.kick(doorbells_, loop_);
  eject(slot_of("disk0"));
  loop_.run_until_idle();
  loop::TaskScope scope(loop_);
  scope.spawn(hotplug_->reset(waiting_for_));
  loop_.run_until_idle();
  EXPECT_EQ(scope.running(), 1u);
  EXPECT_EQ(waiting_for_, "disk0");
  host_->fake_image().channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(scope.running(), 0u);
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, SlotOfADiskThatIsLeavingIsNobodyElses) {
  for (int i = 1; i < 32; ++i) ASSERT_TRUE(add(fake_disk()));
  host_->visits_vcpus = false;
  eject(slot_of("disk4"));
  // Not while the machine has not heard of it, nor while vCPUs may still be inside its registers.
  EXPECT_EQ(add(fake_disk()).error().kind(), loop::ErrorKind::kExhausted);
  loop_.run_until_idle();
  EXPECT_EQ(add(fake_disk()).error().kind(), loop::ErrorKind::kExhausted);
  const auto answer = remove("disk4", {.is_forced = true});
  EXPECT_FALSE(answer->result);
  hotplug_->note_vcpus_outside();
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
  const auto next = add(fake_disk());
  ASSERT_TRUE(next);
  EXPECT_EQ(slot_of(*next), 5);
}

TEST_F(DiskHotplugTest, EndOfTheMachineAnswersWhoeverWaits) {
  add(fake_disk()).value();
  const auto answer = remove("disk0");
  hotplug_->registers().forbid_eject(slot_of("disk0"));  // So that the end does not take it.
  loop::TaskScope scope(loop_);
  scope.spawn(hotplug_->shut_down(waiting_for_));
  loop_.run_until_idle();
  EXPECT_THAT(answer->error(), HasSubstr("The machine has ended"));
  hotplug_->registers().allow_eject(slot_of("disk0"));
}

TEST_F(DiskHotplugTest, LeavingDiskIsOutOfReachForWhateverElseIsDoneToDisks) {
  host_->visits_vcpus = false;
  add(fake_disk("A")).value();
  const auto answer = remove("A", {.is_forced = true});
  EXPECT_FALSE(host_->find_disk("A"));
  EXPECT_FALSE(host_->disks.front().is_detached);
  EXPECT_EQ(add(fake_disk("A")).value(), "disk1");  // Its number is free again.
  hotplug_->note_vcpus_outside();
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
}

TEST_F(DiskHotplugTest, DisksThatCannotBeAddedLeaveNothingBehind) {
  DiskConfig config = fake_disk();
  config.bus = DeviceBus::kMmio;
  EXPECT_THAT(add(config).error().message(), HasSubstr("bus=pci"));
  EXPECT_FALSE(add(file_disk(directory_.path("missing"))));
  config = file_disk(directory_.make_sparse("disk", 1 << 20));
  config.serial = "longer than twenty bytes";
  EXPECT_THAT(add(config).error().message(), HasSubstr("serial"));
  config.serial.clear();
  EXPECT_TRUE(add(config));  // Its lock is free.
  EXPECT_EQ(add(fake_disk("A")).value(), "disk1");
  const auto busy = add(fake_disk("A"));
  EXPECT_EQ(busy.error().kind(), loop::ErrorKind::kBusy);
  EXPECT_THAT(busy.error().message(), HasSubstr("the serial number A means another disk"));
  EXPECT_EQ(events_, 2);
}

TEST_F(DiskHotplugTest, FullBusIsAnErrorAndRoomAgainIsNone) {
  for (int i = 1; i < 32; ++i) ASSERT_TRUE(add(fake_disk()));
  const auto refused = add(fake_disk());
  EXPECT_EQ(refused.error().kind(), loop::ErrorKind::kExhausted);
  EXPECT_EQ(host_->disks.size(), 31u);
  EXPECT_TRUE(remove("disk12", {.is_forced = true})->is_ok());
  EXPECT_EQ(slot_of(add(fake_disk()).value()), 13);
}

// What user, guest and host may do at any time, in any order.
class DiskHotplugSchedules : public DiskHotplugTest, public ::testing::WithParamInterface<int> {
 protected:
  using Driven = std::map<std::string, std::unique_ptr<PciDiskDriver>>;

  size_t pick(size_t count) { return std::uniform_int_distribution<size_t>(0, count - 1)(random_); }
  FakeDiskHost::Disk& any_disk() {
    return *std::next(host_->disks.begin(), static_cast<ptrdiff_t>(pick(host_->disks.size())));
  }
  static std::string name_of(const FakeDiskHost::Disk& disk) {
    return std::string(disk.device->name());
  }

  void use(FakeDiskHost::Disk& disk) {
    const std::string name = name_of(disk);
    if (disk.is_retired) return;
    std::unique_ptr<PciDiskDriver>& driver = drivers_[name];
    if (!driver) {
      driver = std::make_unique<PciDiskDriver>(mmio_, slot_of(name), memory_);
      EXPECT_TRUE(driver->start(loop_));
    }
    if (!driver->has_room()) return;
    driver->offer_write(pick(64), pattern(512));
    EXPECT_TRUE(driver->ring(doorbells_, loop_));
  }
  static bool complete_one(FakeDiskHost::Disk& disk) {
    auto& image = static_cast<block::FakeBackend&>(*disk.image);
    if (!image.has_channel() || image.channel().in_flight() == 0) return false;
    image.channel().complete(0);
    return true;
  }
  void reset_guest() {
    loop::TaskScope scope(loop_);
    scope.spawn(hotplug_->reset(waiting_for_));
    loop_.run_until_idle();
    while (scope.running() != 0) {
      EXPECT_TRUE(std::ranges::any_of(host_->disks, [](auto& disk) { return complete_one(disk); }));
      loop_.run_until_idle();
    }
    drivers_.clear();
  }
  void step() {
    const size_t what = pick(20);
    if (what < 4 || host_->disks.empty()) {
      // A full bus says no.
      EXPECT_TRUE(add(fake_disk()) || host_->disks.size() >= 31);
    } else if (what < 6) {
      pending_.push_back(remove(name_of(any_disk())));
    } else if (what < 8) {
      pending_.push_back(remove(name_of(any_disk()), {.is_forced = true}));
    } else if (what < 10) {
      eject(static_cast<uint8_t>(1 + pick(31)));
    } else if (what < 14) {
      use(any_disk());
    } else if (what < 17) {
      complete_one(any_disk());
    } else if (what < 18) {
      host_->visits_vcpus = !host_->visits_vcpus;
      if (host_->visits_vcpus) hotplug_->note_vcpus_outside();
    } else if (what < 19) {
      loop_.advance_ns(3 * kSecondNs);
    } else {
      reset_guest();
    }
    loop_.run_until_idle();
  }

  std::mt19937 random_{static_cast<uint32_t>(GetParam())};
  Driven drivers_;
  std::vector<std::shared_ptr<Answer>> pending_;
};

TEST_P(DiskHotplugSchedules, EveryRemovalEndsAndIsAnswered) {
  for (int i = 0; i < 300; ++i) step();
  host_->visits_vcpus = true;
  hotplug_->note_vcpus_outside();
  std::vector<std::string> names;
  for (const FakeDiskHost::Disk& disk : host_->disks) names.push_back(name_of(disk));
  for (const std::string& name : names) pending_.push_back(remove(name, {.is_forced = true}));
  while (std::ranges::any_of(host_->disks, [](auto& disk) { return complete_one(disk); }))
    loop_.run_until_idle();
  EXPECT_THAT(host_->disks, IsEmpty());
  for (const auto& answer : pending_) EXPECT_TRUE(answer->result);
  EXPECT_EQ(hotplug_->slots(), 0u);
  EXPECT_EQ(read_port(8), 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, DiskHotplugSchedules, ::testing::Range(0, 40));

TEST_F(DiskHotplugTest, DiskOnAnotherBusStays) {
  host_->make_disk(fake_disk("A"), *host_->open(fake_disk())).value();
  EXPECT_THAT(remove("A")->error(),
              HasSubstr("disk0 cannot be removed: it was made with bus=mmio"));
  host_->disks.clear();
}

}  // namespace
}  // namespace skiff::vmm
