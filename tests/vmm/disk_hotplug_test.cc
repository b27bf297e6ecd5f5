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
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/open_image.h"
#include "block/testing/fake_channel.h"
#include "devices/core/bus.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_hotplug.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_msi.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/awaitables.h"
#include "loop/check.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "loop/testing/manual_loop.h"
#include "loop/worker_pool.h"
#include "tests/devices/pci/pci_driver.h"
#include "tests/temp_dir.h"
#include "tests/vmm/pci_disk_driver.h"
#include "vmm/config/machine_config.h"
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
// A disk whose requests end when the test says so; any other path is a file.
constexpr const char* kFakePath = "fake";

// The machine's part: makes disks on fakes, and lets vCPUs be visited when the test says so.
class FakeHost final : public DiskHotplug::Host {
 public:
  struct Disk {
    DiskConfig config;
    std::unique_ptr<block::BlockBackend> image;
    std::unique_ptr<devices::VirtioBlk> device;
    std::unique_ptr<block::DrainPoint> drain;
    bool is_retired = false;
    bool is_detached = false;
  };

  FakeHost(loop::EventLoop& loop, devices::FakeGuestMemory& memory)
      : loop_(loop), memory_(memory), workers_(*loop::WorkerPool::create({})) {}

  Result<devices::VirtioDevice*> make_disk(const DiskConfig& config) override;
  Result<devices::VirtioDevice*> find_disk(std::string_view which) override {
    for (const Disk& disk : disks)
      if (!disk.is_retired && (disk.device->name() == which || disk.config.serial == which ||
                               disk.config.path == which))
        return static_cast<devices::VirtioDevice*>(disk.device.get());
    return loop::Error(loop::ErrorKind::kNotFound, "No such disk");
  }
  void retire_disk(devices::VirtioDevice& disk) override { find(disk).is_retired = true; }
  loop::Task<void> detach_disk(devices::VirtioDevice& disk) override {
    Disk& detached = find(disk);
    loop::OneShot<bool> left(loop_);
    detached.drain->leave(detached.device->drain_party(0), [&left] { left.set(true); });
    co_await left;
    detached.is_detached = true;
  }
  void destroy_disk(devices::VirtioDevice& disk) override {
    std::erase_if(disks, [&](const Disk& other) { return other.device.get() == &disk; });
  }
  void visit_vcpus() override {
    ++visits_asked;
    if (visits_vcpus) loop_.post([this] { hotplug->note_vcpus_outside(); });
  }

  Disk& find(const devices::VirtioDevice& device) {
    return *std::ranges::find_if(disks,
                                 [&](const Disk& disk) { return disk.device.get() == &device; });
  }
  block::FakeBackend& fake_image() {
    return static_cast<block::FakeBackend&>(*disks.front().image);
  }

  DiskHotplug* hotplug = nullptr;
  bool visits_vcpus = true;
  int visits_asked = 0;
  std::list<Disk> disks;

 private:
  loop::EventLoop& loop_;
  devices::FakeGuestMemory& memory_;
  std::unique_ptr<loop::WorkerPool> workers_;
  int made_ = 0;
};

Result<devices::VirtioDevice*> FakeHost::make_disk(const DiskConfig& config) {
  Disk disk{.config = config};
  if (config.path == kFakePath) {
    disk.image = std::make_unique<block::FakeBackend>(block::FakeBackend::Options{});
  } else {
    auto image = block::open_image(
        {.path = config.path, .format = block::ImageFormat::kRaw, .engine = config.engine},
        *workers_);
    if (!image) return image.error();
    disk.image = *std::move(image);
  }
  auto device = devices::VirtioBlk::create({.queues = {{&loop_}},
                                            .memory = &memory_.memory(),
                                            .image = disk.image.get(),
                                            .name = "disk" + std::to_string(made_),
                                            .serial = config.serial});
  if (!device) return device.error();
  ++made_;
  disk.device = *std::move(device);
  disk.drain = std::make_unique<block::DrainPoint>(loop_, std::string(disk.device->name()));
  disk.drain->join(disk.device->drain_party(0), loop_, "queue 0");
  disks.push_back(std::move(disk));
  return static_cast<devices::VirtioDevice*>(disks.back().device.get());
}

class DiskHotplugTest : public ::testing::Test {
 protected:
  DiskHotplugTest() {
    pci_ = *PciBus::create(mmio_, pio_,
                           {.ecam_base = PciDriver::kEcamBase,
                            .memory32 = devices::PciWindow(0xc000'0000, 0x1000'0000),
                            .memory64 = devices::PciWindow(0x10'0000'0000, 0x1'0000'0000)});
    host_ = std::make_unique<FakeHost>(loop_, memory_);
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
  std::string_view waiting_for_;
  devices::FakeMsiSink msi_;
  devices::FakeDoorbellHub doorbells_;
  std::unique_ptr<PciBus> pci_;
  std::unique_ptr<FakeHost> host_;
  std::unique_ptr<DiskHotplug> hotplug_;
};

TEST_F(DiskHotplugTest, NewDiskIsOnTheBusAndTheGuestIsTold) {
  EXPECT_EQ(hotplug_->add(fake_disk("A")).value(), "disk0");
  EXPECT_EQ(hotplug_->add(fake_disk("B")).value(), "disk1");
  EXPECT_EQ(events_, 2);
  EXPECT_EQ(hotplug_->slots(), 1u << 1 | 1u << 2);
  EXPECT_EQ(read_port(0), hotplug_->slots());
  EXPECT_TRUE(is_found(slot_of("disk1")));
  EXPECT_EQ(state_of("disk1"), State::kPlugged);
  EXPECT_EQ(hotplug_->plug_of("disk2"), std::nullopt);
}

TEST_F(DiskHotplugTest, DiskThatTheGuestEjectsGoesAndItsFileIsFree) {
  const std::string path = directory_.make_sparse("disk", 1 << 20);
  const uint8_t slot = slot_of(hotplug_->add(file_disk(path)).value());
  EXPECT_THAT(hotplug_->add(file_disk(path)).error().message(), HasSubstr("use"));
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
  const std::string again = hotplug_->add(file_disk(path)).value();
  EXPECT_NE(slot_of(again), slot);
}

TEST_F(DiskHotplugTest, TwentyRoundsLeaveNothingBehind) {
  const std::string path = directory_.make_sparse("disk", 1 << 20);
  for (int round = 0; round < 20; ++round) {
    const auto name = hotplug_->add(file_disk(path));
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
  hotplug_->add(fake_disk()).value();
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
  hotplug_->add(fake_disk()).value();
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
  hotplug_->add(fake_disk()).value();
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
  hotplug_->add(fake_disk()).value();
  const auto answer = remove("disk0", {.timeout_ns = kSecondNs});
  loop_.advance_ns(kSecondNs);
  EXPECT_FALSE(answer->is_ok());
  eject(slot_of("disk0"));
  loop_.run_until_idle();
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, HostThatDoesNotFinishIsAnotherTimeout) {
  hotplug_->add(fake_disk()).value();
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
  hotplug_->add(fake_disk()).value();
  const auto first = remove("disk0");
  const auto second = remove("disk0");
  eject(slot_of("disk0"));
  loop_.run_until_idle();
  EXPECT_TRUE(first->is_ok());
  EXPECT_TRUE(second->is_ok());
  EXPECT_THAT(remove("disk0")->error(), HasSubstr("No such disk"));
}

TEST_F(DiskHotplugTest, GuestMayEjectWhatNobodyAskedFor) {
  hotplug_->add(fake_disk()).value();
  eject(slot_of("disk0"));
  eject(1);  // And again, and empty slots, and all at once.
  eject(17);
  loop_.run_until_idle();
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, DiskThatIsThereFromTheStartCanGoAsWell) {
  hotplug_->plug_at_boot(**host_->make_disk(fake_disk())).value();
  EXPECT_EQ(events_, 0);
  const auto answer = remove("disk0");
  EXPECT_EQ(events_, 1);
  eject(slot_of("disk0"));
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
}

TEST_F(DiskHotplugTest, ResetTakesWhatTheGuestWasAskedForAndKeepsTheOthers) {
  hotplug_->add(fake_disk("A")).value();
  hotplug_->add(fake_disk("B")).value();
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
  hotplug_->add(fake_disk()).value();
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
  host_->fake_image().channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(scope.running(), 0u);
  EXPECT_THAT(host_->disks, IsEmpty());
}

TEST_F(DiskHotplugTest, EndOfTheMachineAnswersWhoeverWaits) {
  hotplug_->add(fake_disk()).value();
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
  hotplug_->add(fake_disk("A")).value();
  const auto answer = remove("A", {.is_forced = true});
  EXPECT_FALSE(host_->find_disk("A"));
  EXPECT_FALSE(host_->disks.front().is_detached);
  EXPECT_EQ(hotplug_->add(fake_disk("A")).value(), "disk1");  // Its number is free again.
  hotplug_->note_vcpus_outside();
  loop_.run_until_idle();
  EXPECT_TRUE(answer->is_ok());
}

TEST_F(DiskHotplugTest, DisksThatCannotBeAddedLeaveNothingBehind) {
  DiskConfig config = fake_disk();
  config.bus = DeviceBus::kMmio;
  EXPECT_THAT(hotplug_->add(config).error().message(), HasSubstr("bus=pci"));
  EXPECT_FALSE(hotplug_->add(file_disk(directory_.path("missing"))));
  config = file_disk(directory_.make_sparse("disk", 1 << 20));
  config.serial = "longer than twenty bytes";
  EXPECT_THAT(hotplug_->add(config).error().message(), HasSubstr("serial"));
  config.serial.clear();
  EXPECT_TRUE(hotplug_->add(config));  // Its lock is free.
  EXPECT_EQ(hotplug_->add(fake_disk("A")).value(), "disk1");
  const auto busy = hotplug_->add(fake_disk("A"));
  EXPECT_EQ(busy.error().kind(), loop::ErrorKind::kBusy);
  EXPECT_THAT(busy.error().message(), HasSubstr("the serial number A means another disk"));
  EXPECT_EQ(events_, 2);
}

TEST_F(DiskHotplugTest, FullBusIsAnErrorAndRoomAgainIsNone) {
  for (int i = 1; i < 32; ++i) ASSERT_TRUE(hotplug_->add(fake_disk()));
  const auto refused = hotplug_->add(fake_disk());
  EXPECT_EQ(refused.error().kind(), loop::ErrorKind::kExhausted);
  EXPECT_EQ(host_->disks.size(), 31u);
  EXPECT_TRUE(remove("disk12", {.is_forced = true})->is_ok());
  EXPECT_EQ(slot_of(hotplug_->add(fake_disk()).value()), 13);
}

// What user, guest and host may do at any time, in any order.
class DiskHotplugSchedules : public DiskHotplugTest, public ::testing::WithParamInterface<int> {
 protected:
  using Driven = std::map<std::string, std::unique_ptr<PciDiskDriver>>;

  size_t pick(size_t count) { return std::uniform_int_distribution<size_t>(0, count - 1)(random_); }
  FakeHost::Disk& any_disk() {
    return *std::next(host_->disks.begin(), static_cast<ptrdiff_t>(pick(host_->disks.size())));
  }
  static std::string name_of(const FakeHost::Disk& disk) {
    return std::string(disk.device->name());
  }

  void use(FakeHost::Disk& disk) {
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
  static bool complete_one(FakeHost::Disk& disk) {
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
      EXPECT_TRUE(hotplug_->add(fake_disk()) || host_->disks.size() >= 31);
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
  for (const FakeHost::Disk& disk : host_->disks) names.push_back(name_of(disk));
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
  host_->make_disk(fake_disk("A")).value();
  EXPECT_THAT(remove("A")->error(),
              HasSubstr("disk0 cannot be removed: it was made with bus=mmio"));
  host_->disks.clear();
}

}  // namespace
}  // namespace skiff::vmm
