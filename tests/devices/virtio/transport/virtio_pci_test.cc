// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/virtio_pci.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "devices/core/bus.h"
#include "devices/core/msi.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_registers.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_msi.h"
#include "devices/testing/fake_virtio_device.h"
#include "devices/testing/run_task.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "devices/virtio/virtio_device.h"
#include "loop/result.h"
#include "loop/testing/manual_loop.h"
#include "loop/thread.h"
#include "tests/devices/pci/pci_driver.h"

namespace skiff::devices {
namespace {

// Common configuration (virtio 1.2, 4.1.4.3).
constexpr uint32_t kFeatureSelect = 0x00;
constexpr uint32_t kFeature = 0x04;
constexpr uint32_t kDriverFeatureSelect = 0x08;
constexpr uint32_t kDriverFeature = 0x0c;
constexpr uint32_t kConfigVector = 0x10;
constexpr uint32_t kNumQueues = 0x12;
constexpr uint32_t kStatus = 0x14;
constexpr uint32_t kGeneration = 0x15;
constexpr uint32_t kQueueSelect = 0x16;
constexpr uint32_t kQueueSize = 0x18;
constexpr uint32_t kQueueVector = 0x1a;
constexpr uint32_t kQueueEnable = 0x1c;
constexpr uint32_t kQueueNotifyOff = 0x1e;
constexpr uint32_t kQueueDesc = 0x20;
constexpr uint32_t kQueueDevice = 0x30;
constexpr uint32_t kQueueReset = 0x3a;

constexpr uint32_t kFeaturesOk = kVirtioAcknowledge | kVirtioDriver | kVirtioFeaturesOk;
constexpr MsiMessage kConfigMessage{.address = 0xfee0'0000, .data = 0x40};
constexpr MsiMessage kQueueMessage{.address = 0xfee0'1000, .data = 0x41};
constexpr MsiMessage kOtherMessage{.address = 0xfee0'2000, .data = 0x42};

class VirtioPciTest : public ::testing::Test {
 protected:
  explicit VirtioPciTest(uint64_t features = 0)
      : device_({.id = VirtioId::kBlock, .features = 1 | features}) {
    bus_ = *PciBus::create(mmio_, pio_,
                           {.ecam_base = PciDriver::kEcamBase,
                            .memory32 = PciWindow(0xc000'0000, 0x1000'0000),
                            .memory64 = PciWindow(0x10'0000'0000, 0x1'0000'0000)});
    transport_ = *VirtioPci::create(
        {.device = device_, .msi = msi_, .doorbells = doorbells_, .main_loop = loop_});
    bus_->add(*transport_).value();
    driver_.enable(pci::kCommandMemory);
  }
  ~VirtioPciTest() override { EXPECT_TRUE(run_task(transport_->reset())); }

  uint64_t at(uint8_t type) const {
    const auto capability = driver_.find_virtio(type);
    return driver_.bar(capability->bar) + capability->offset;
  }
  uint32_t common(uint32_t field, uint32_t size) const {
    return static_cast<uint32_t>(driver_.read_memory(at(1) + field, size));
  }
  void set_common(uint32_t field, uint32_t size, uint64_t value) const {
    driver_.write_memory(at(1) + field, size, value);
  }
  uint64_t doorbell(uint16_t queue) const {
    set_common(kQueueSelect, 2, queue);
    const uint32_t multiplier = driver_.config(driver_.find_virtio(2)->at + 16u, 4);
    return at(2) + uint64_t{common(kQueueNotifyOff, 2)} * multiplier;
  }
  uint8_t isr() const { return static_cast<uint8_t>(driver_.read_memory(at(3), 1)); }

  void set_up_msix() const {
    driver_.set_msix_control(pci::kMsixEnable | pci::kMsixFunctionMask);
    driver_.set_vector(0, kConfigMessage);
    driver_.set_vector(1, kQueueMessage);
    driver_.set_vector(2, kOtherMessage);
    driver_.set_msix_control(pci::kMsixEnable);
    for (uint16_t i = 0; i < 3; ++i) driver_.mask_vector(i, false);
    set_common(kConfigVector, 2, 0);
    for (uint16_t queue = 0; queue < 2; ++queue) {
      set_common(kQueueSelect, 2, queue);
      set_common(kQueueVector, 2, 1);
    }
  }
  // As virtio_pci_modern: reset, features, queues, ready.
  void run() const {
    set_common(kStatus, 1, 0);
    ASSERT_EQ(common(kStatus, 1), 0u);
    set_common(kStatus, 1, kVirtioAcknowledge | kVirtioDriver);
    set_common(kDriverFeatureSelect, 4, 1);
    set_common(kDriverFeature, 4, 1);
    set_common(kStatus, 1, kFeaturesOk);
    ASSERT_EQ(common(kStatus, 1), kFeaturesOk);
    for (uint16_t queue = 0; queue < 2; ++queue) {
      set_common(kQueueSelect, 2, queue);
      set_common(kQueueDesc, 4, uint64_t{0x1000} * (queue + 1u));
      set_common(kQueueDesc + 4, 4, 1);
      set_common(kQueueEnable, 2, 1);
    }
    set_common(kStatus, 1, kFeaturesOk | kVirtioDriverOk);
  }

  MmioBus mmio_;
  PioBus pio_;
  loop::ManualLoop loop_;
  FakeMsiSink msi_;
  FakeDoorbellHub doorbells_;
  FakeVirtioDevice device_;
  std::unique_ptr<PciBus> bus_;
  std::unique_ptr<VirtioPci> transport_;
  PciDriver driver_{mmio_, 1};
};

TEST_F(VirtioPciTest, IdentityIsThatOfAModernBlockDevice) {
  EXPECT_EQ(driver_.config(pci::kVendorId, 4), 0x1042'1af4u);
  EXPECT_EQ(driver_.config(pci::kRevision, 1), 1u);
  EXPECT_EQ(driver_.config(pci::kRevision, 4) >> 8, 0x018000u);
  EXPECT_EQ(driver_.config(pci::kSubsystemVendorId, 2), 0x1af4u);
  EXPECT_GE(driver_.config(pci::kSubsystemId, 2), 0x40u);
  EXPECT_EQ(driver_.config(pci::kInterruptPin, 1), 0u);
}

TEST_F(VirtioPciTest, EveryStructureIsFoundThroughItsCapabilityInsideTheBar) {
  for (uint8_t type = 1; type <= 4; ++type) {
    const auto capability = driver_.find_virtio(type);
    ASSERT_TRUE(capability) << int{type};
    EXPECT_LE(uint64_t{capability->offset} + capability->length, driver_.size_bar(capability->bar));
  }
  EXPECT_GE(driver_.find_virtio(1)->length, 56u);  // What Linux insists on.
  EXPECT_TRUE(driver_.find_virtio(5));
  EXPECT_TRUE(driver_.find_capability(pci::kCapabilityMsix));
  EXPECT_EQ(driver_.size_bar(0), VirtioPci::kBarSizeBytes);
}

TEST_F(VirtioPciTest, DriverBringsTheDeviceUp) {
  set_common(kFeatureSelect, 4, 0);
  EXPECT_EQ(common(kFeature, 4), 0x3000'0001u);
  EXPECT_EQ(common(kNumQueues, 2), 2u);
  EXPECT_EQ(common(kQueueSize, 2), 256u);
  run();
  EXPECT_EQ(common(kStatus, 1), kFeaturesOk | kVirtioDriverOk);
  ASSERT_EQ(device_.starts().size(), 1u);
  EXPECT_EQ(device_.starts()[0].queues[1].descriptors.value, 0x1'0000'2000u);
  EXPECT_EQ(device_.starts()[0].queues[1].size, 256u);
}

TEST_F(VirtioPciTest, KickRingsTheDoorbellOfItsQueueWithoutAnExit) {
  EXPECT_EQ(doorbells_.attached(), 0u);
  run();
  EXPECT_EQ(doorbells_.attached(), 2u);
  EXPECT_TRUE(doorbells_.ring(doorbell(1), 2, 1));
  EXPECT_TRUE(device_.doorbell(1).consume());
  EXPECT_FALSE(device_.doorbell(0).consume());
  set_common(kStatus, 1, 0);
  EXPECT_EQ(doorbells_.attached(), 0u);
}

TEST_F(VirtioPciTest, KickWithoutADoorbellArrivesAsARegisterWrite) {
  doorbells_.refuse(true);
  driver_.write_memory(doorbell(1), 2, 1);
  EXPECT_FALSE(device_.doorbell(1).consume());  // Not running.
  run();
  EXPECT_EQ(doorbells_.attached(), 0u);
  driver_.write_memory(doorbell(1), 2, 1);
  EXPECT_TRUE(device_.doorbell(1).consume());
  EXPECT_FALSE(device_.doorbell(0).consume());
  driver_.write_memory(at(2) + 8, 2, 2);  // No such queue.
  EXPECT_EQ(driver_.read_memory(doorbell(1), 2), 0u);
}

TEST_F(VirtioPciTest, DoorbellsFollowTheBar) {
  run();
  const uint64_t before = doorbell(0);
  driver_.set_bar_register(1, 0x11);
  EXPECT_EQ(doorbell(0), before + 0x1'0000'0000);
  EXPECT_FALSE(doorbells_.ring(before, 2, 0));
  EXPECT_TRUE(doorbells_.ring(doorbell(0), 2, 0));
  driver_.disable(pci::kCommandMemory);
  EXPECT_EQ(doorbells_.attached(), 0u);
  driver_.enable(pci::kCommandMemory);
  EXPECT_EQ(doorbells_.attached(), 2u);
  driver_.set_bar64(0, PciDriver::kEcamBase);  // Where it cannot be.
  EXPECT_EQ(doorbells_.attached(), 0u);
}

TEST_F(VirtioPciTest, QueueInterruptGoesToTheVectorOfItsQueue) {
  set_up_msix();
  set_common(kQueueSelect, 2, 1);
  set_common(kQueueVector, 2, 2);
  run();
  EXPECT_EQ(msi_.sent(), 0u);
  set_common(kQueueSelect, 2, 0);
  EXPECT_EQ(common(kQueueVector, 2), VirtioPci::kNoVector);  // The reset in run() took them.
  device_.transport().interrupt_queue(0);
  EXPECT_EQ(msi_.sent(), 0u);
  set_up_msix();
  device_.transport().interrupt_queue(0);
  EXPECT_EQ(msi_.sent(kQueueMessage), 1u);
  EXPECT_EQ(isr(), 0u);
}

TEST_F(VirtioPciTest, QueueCanGetAnotherVectorWhileItRuns) {
  run();
  set_up_msix();
  device_.transport().interrupt_queue(0);
  set_common(kQueueSelect, 2, 0);
  set_common(kQueueVector, 2, 2);
  EXPECT_EQ(common(kQueueVector, 2), 2u);
  device_.transport().interrupt_queue(0);
  device_.transport().interrupt_queue(1);
  EXPECT_EQ(msi_.sent(kQueueMessage), 2u);
  EXPECT_EQ(msi_.sent(kOtherMessage), 1u);
}

TEST_F(VirtioPciTest, VectorThatIsNotThereReadsBackAsNone) {
  set_common(kQueueVector, 2, 3);  // Three vectors: 0 to 2.
  EXPECT_EQ(common(kQueueVector, 2), VirtioPci::kNoVector);
  set_common(kConfigVector, 2, 2);
  EXPECT_EQ(common(kConfigVector, 2), 2u);
  set_common(kConfigVector, 2, 0xfffe);
  EXPECT_EQ(common(kConfigVector, 2), VirtioPci::kNoVector);
  set_common(kQueueSelect, 2, 2);
  set_common(kQueueVector, 2, 0);
  EXPECT_EQ(common(kQueueVector, 2), VirtioPci::kNoVector);
}

TEST_F(VirtioPciTest, ChangedConfigurationIsANewGenerationAnIsrBitAndAnInterrupt) {
  run();
  set_up_msix();
  const uint32_t generation = common(kGeneration, 1);
  device_.transport().interrupt_config();
  EXPECT_NE(common(kGeneration, 1), generation);
  EXPECT_EQ(msi_.sent(kConfigMessage), 1u);
  EXPECT_EQ(isr(), 2u);
  EXPECT_EQ(isr(), 0u);
}

TEST_F(VirtioPciTest, IsrTellsOfQueuesWithoutMsix) {
  run();
  device_.transport().interrupt_queue(1);
  device_.transport().interrupt_config();
  EXPECT_EQ(isr(), 3u);
  EXPECT_EQ(isr(), 0u);
  EXPECT_EQ(msi_.sent(), 0u);
}

TEST_F(VirtioPciTest, BrokenQueueIsSeenInTheStatusAndInterrupts) {
  run();
  set_up_msix();
  device_.transport().need_reset();
  EXPECT_NE(common(kStatus, 1) & kVirtioNeedsReset, 0u);
  EXPECT_EQ(msi_.sent(kConfigMessage), 1u);
}

TEST_F(VirtioPciTest, ResetReadsZeroOnlyWhenTheDeviceHasStopped) {
  device_.hold_stops();
  run();
  set_common(kStatus, 1, 0);
  EXPECT_NE(common(kStatus, 1), 0u);
  set_common(kStatus, 1, 0);
  EXPECT_TRUE(device_.finish_stop());
  EXPECT_EQ(common(kStatus, 1), 0u);
  EXPECT_EQ(device_.stops(), 1u);
}

TEST_F(VirtioPciTest, MachineResetWaitsForTheStopAndForgetsEverything) {
  run();
  set_up_msix();
  driver_.set_bar_register(0, 0xc800'0000);
  device_.hold_stops();
  bool has_ended = false;
  start_task(transport_->reset(), has_ended);
  EXPECT_FALSE(has_ended);
  {
    loop::Thread stopper =
        loop::Thread::create({.name = "io"}, [this] { device_.finish_stop(); }).value();
  }
  EXPECT_FALSE(has_ended);  // Only on its own loop.
  loop_.run_until_idle();
  ASSERT_TRUE(has_ended);
  EXPECT_EQ(driver_.config(pci::kCommand, 2), 0u);
  EXPECT_EQ(driver_.bar(0), 0x10'0000'0000u);
  EXPECT_EQ(doorbells_.attached(), 0u);
  driver_.enable(pci::kCommandMemory);
  EXPECT_EQ(common(kStatus, 1), 0u);
  EXPECT_EQ(common(kConfigVector, 2), VirtioPci::kNoVector);
}

TEST_F(VirtioPciTest, MachineResetJoinsAResetOfTheDriver) {
  run();
  device_.hold_stops();
  set_common(kStatus, 1, 0);
  bool has_ended = false;
  start_task(transport_->reset(), has_ended);
  EXPECT_FALSE(has_ended);
  device_.finish_stop();
  loop_.run_until_idle();
  EXPECT_TRUE(has_ended);
  EXPECT_EQ(device_.stops(), 1u);
}

TEST_F(VirtioPciTest, DeviceConfigurationIsReadAndWrittenAtAnySize) {
  EXPECT_EQ(driver_.read_memory(at(4), 8), 0x0807'0605'0403'0201u);
  EXPECT_EQ(driver_.read_memory(at(4) + 1, 2), 0x0302u);
  driver_.write_memory(at(4) + 3, 1, 0xaa);
  EXPECT_EQ(driver_.read_memory(at(4) + 2, 2), 0xaa03u);
  EXPECT_EQ(driver_.read_memory(at(4) + 20, 8), 0x1817'1615u);  // Zeroes behind the end.
  EXPECT_EQ(driver_.read_memory(at(4) + 0xffe, 4), 0u);
}

TEST_F(VirtioPciTest, OddAccessesToTheCommonConfigurationReadRightAndWriteNothing) {
  set_common(kDriverFeatureSelect, 4, 0x0403'0201);
  EXPECT_EQ(common(kDriverFeatureSelect + 1, 2), 0x0302u);
  EXPECT_EQ(common(kDriverFeatureSelect + 3, 1), 0x04u);
  EXPECT_EQ(driver_.read_memory(at(1) + kConfigVector, 8), 0x0000'0000'0002'ffffu);
  set_common(kDriverFeatureSelect, 2, 0);
  set_common(kDriverFeatureSelect + 2, 4, 0);
  set_common(kDriverFeatureSelect, 8, 0);
  EXPECT_EQ(common(kDriverFeatureSelect, 4), 0x0403'0201u);
  set_common(kQueueDesc, 8, 0x1122'3344'5566'7788);
  set_common(kQueueDesc + 2, 4, 0);
  set_common(kQueueDesc, 2, 0);
  set_common(kQueueDesc + 4, 8, 0);
  EXPECT_EQ(driver_.read_memory(at(1) + kQueueDesc, 8), 0x1122'3344'5566'7788u);
  EXPECT_EQ(driver_.read_memory(at(1) + kQueueDevice + 8, 8), 0u);
  set_common(kStatus, 2, kVirtioAcknowledge);
  EXPECT_EQ(common(kStatus, 1), 0u);
}

TEST_F(VirtioPciTest, QueueIsNotDisabledByAWrite) {
  set_common(kQueueEnable, 2, 1);
  set_common(kQueueEnable, 2, 0);
  set_common(kQueueEnable, 2, 2);
  EXPECT_EQ(common(kQueueEnable, 2), 1u);
}

TEST_F(VirtioPciTest, QueueAddressesAtTheTopReachTheDeviceUnchanged) {
  set_common(kQueueDesc, 8, ~uint64_t{0});
  run();
  set_common(kStatus, 1, 0);
  set_common(kStatus, 1, kVirtioAcknowledge | kVirtioDriver);
  set_common(kDriverFeatureSelect, 4, 1);
  set_common(kDriverFeature, 4, 1);
  set_common(kStatus, 1, kFeaturesOk);
  set_common(kQueueDevice, 8, ~uint64_t{0});
  set_common(kQueueEnable, 2, 1);
  set_common(kStatus, 1, kFeaturesOk | kVirtioDriverOk);
  EXPECT_EQ(device_.starts().back().queues[0].used.value, ~uint64_t{0});
}

TEST_F(VirtioPciTest, WindowInConfigurationSpaceReachesTheRegisters) {
  const uint32_t window = driver_.find_virtio(5)->at;
  driver_.set_config(window + 4, 1, 0);
  driver_.set_config(window + 8, 4, static_cast<uint32_t>(VirtioPci::kDeviceConfig));
  driver_.set_config(window + 12, 4, 4);
  EXPECT_EQ(driver_.config(window + 16, 4), 0x0403'0201u);
  driver_.set_config(window + 8, 4, kStatus);
  driver_.set_config(window + 12, 4, 1);
  driver_.set_config(window + 16, 1, kVirtioAcknowledge);
  EXPECT_EQ(common(kStatus, 1), kVirtioAcknowledge);
  EXPECT_EQ(driver_.config(window + 16, 1), kVirtioAcknowledge);
}

TEST_F(VirtioPciTest, WindowPointedNowhereDoesNothing) {
  const uint32_t window = driver_.find_virtio(5)->at;
  device_.transport().interrupt_queue(0);
  driver_.config(window + 16, 4);  // As a tool that dumps configuration space.
  for (const uint32_t length : {0u, 3u, 8u, ~0u}) {
    for (const uint32_t offset : {0x1000u, 0xffffu, 0x1'0000u, 0xffff'fffeu, ~0u}) {
      driver_.set_config(window + 8, 4, offset);
      driver_.set_config(window + 12, 4, length);
      driver_.config(window + 15, 8);
      driver_.set_config(window + 14, 8, ~0u);
    }
  }
  driver_.set_config(window + 4, 1, 1);  // Another BAR.
  driver_.set_config(window + 8, 4, static_cast<uint32_t>(VirtioPci::kIsr));
  driver_.set_config(window + 12, 4, 1);
  driver_.config(window + 16, 4);
  EXPECT_EQ(isr(), 1u);
}

TEST_F(VirtioPciTest, QueuesThatShareAVectorShareTheInterrupt) {
  run();
  set_up_msix();  // Both have vector 1.
  const std::array<QueueIndex, 2> both = {0, 1};
  device_.transport().interrupt_queues(both);
  EXPECT_EQ(msi_.sent(kQueueMessage), 1u);
  set_common(kQueueVector, 2, 2);  // Of queue 1.
  device_.transport().interrupt_queues(both);
  EXPECT_EQ(msi_.sent(kQueueMessage), 2u);
  EXPECT_EQ(msi_.sent(kOtherMessage), 1u);
}

TEST_F(VirtioPciTest, DeviceLearnsWhereTheInterruptsOfAQueueGo) {
  run();
  EXPECT_FALSE(device_.target(0));
  set_up_msix();
  EXPECT_EQ(device_.target(0), kQueueMessage);
  EXPECT_EQ(device_.target(1), kQueueMessage);
  driver_.mask_vector(1, true);
  EXPECT_FALSE(device_.target(0));
  driver_.set_vector(1, kOtherMessage);
  driver_.mask_vector(1, false);
  EXPECT_EQ(device_.target(0), kOtherMessage);
  set_common(kQueueVector, 2, 0);  // Of queue 1.
  EXPECT_EQ(device_.target(1), kConfigMessage);
  EXPECT_EQ(device_.target(0), kOtherMessage);
  driver_.set_msix_control(pci::kMsixEnable | pci::kMsixFunctionMask);
  EXPECT_FALSE(device_.target(0));
  driver_.set_msix_control(pci::kMsixEnable);
  EXPECT_EQ(device_.target(0), kOtherMessage);
  set_common(kStatus, 1, 0);
  EXPECT_FALSE(device_.target(0));
  EXPECT_FALSE(device_.target(1));
}

TEST_F(VirtioPciTest, KickEndsTheGuestsRunWhereTheDeviceWantsThat) {
  run();
  EXPECT_EQ(doorbells_.attached(), 2u);
  device_.transport().set_doorbell_path(1, DoorbellPath::kExit);
  EXPECT_EQ(doorbells_.attached(), 1u);
  EXPECT_TRUE(doorbells_.ring(doorbell(0), 2, 0));
  EXPECT_FALSE(doorbells_.ring(doorbell(1), 2, 1));
  driver_.write_memory(doorbell(1), 2, 1);
  EXPECT_EQ(device_.kicks(), std::vector<QueueIndex>{1});
  set_common(kStatus, 1, 0);
  run();  // Resets do not change it.
  EXPECT_EQ(doorbells_.attached(), 1u);
  device_.transport().set_doorbell_path(1, DoorbellPath::kKernel);
  EXPECT_EQ(doorbells_.attached(), 2u);
}

class VirtioPciQueueResetTest : public VirtioPciTest {
 protected:
  VirtioPciQueueResetTest() : VirtioPciTest(kVirtioRingReset) {}
  void SetUp() override {
    set_common(kStatus, 1, kVirtioAcknowledge | kVirtioDriver);
    set_common(kDriverFeatureSelect, 4, 1);
    set_common(kDriverFeature, 4, 1 | static_cast<uint32_t>(kVirtioRingReset >> 32));
    set_common(kStatus, 1, kFeaturesOk);
    set_common(kQueueSelect, 2, 1);
    set_common(kQueueEnable, 2, 1);
    set_common(kQueueVector, 2, 1);
    set_common(kStatus, 1, kFeaturesOk | kVirtioDriverOk);
  }
};

TEST_F(VirtioPciQueueResetTest, RegisterReadsOneUntilItIsDoneAndTheQueueIsUsedAgain) {
  device_.hold_stops();
  EXPECT_EQ(common(kQueueReset, 2), 0u);
  set_common(kQueueReset, 2, 2);  // Only 1 means anything.
  EXPECT_EQ(common(kQueueReset, 2), 0u);
  set_common(kQueueReset, 2, 1);
  EXPECT_EQ(common(kQueueReset, 2), 1u);
  EXPECT_EQ(doorbells_.attached(), 0u);
  device_.finish_queue_reset();
  EXPECT_EQ(common(kQueueReset, 2), 0u);
  EXPECT_EQ(common(kQueueEnable, 2), 0u);
  EXPECT_EQ(common(kQueueVector, 2), VirtioPci::kNoVector);
  set_common(kQueueEnable, 2, 1);
  EXPECT_EQ(common(kQueueEnable, 2), 1u);
  EXPECT_EQ(doorbells_.attached(), 1u);
  EXPECT_EQ(device_.queue_starts().size(), 1u);
  set_common(kStatus, 1, 0);
  device_.finish_stop();
}

TEST_F(VirtioPciTest, TooManyQueuesAreRefused) {
  FakeVirtioDevice device{{.queues = 2048}};
  const auto made = VirtioPci::create(
      {.device = device, .msi = msi_, .doorbells = doorbells_, .main_loop = loop_});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().kind(), loop::ErrorKind::kInvalidArgument);
}

// One thread interrupts as an IOThread does, one is the driver that resets, moves the BAR and
// remaps vectors; what matters is what the sanitizers and the fakes' own checks say.
TEST_F(VirtioPciTest, InterruptsRaceWithADriverThatChangesEverything) {
  std::atomic<bool> ends{false};
  {
    loop::Thread device = loop::Thread::create({.name = "io"}, [&] {
                            while (!ends) {
                              device_.transport().interrupt_queue(0);
                              device_.transport().interrupt_config();
                              device_.transport().need_reset();
                            }
                          }).value();
    for (uint32_t i = 0; i < 200; ++i) {
      run();
      set_up_msix();
      driver_.set_bar_register(1, 0x10 + i % 2);
      set_common(kQueueVector, 2, i % 4);
      driver_.mask_vector(1, i % 2 == 0);
      set_common(kStatus, 1, 0);
    }
    ends = true;
  }
  EXPECT_EQ(device_.starts().size(), 200u);
  EXPECT_EQ(doorbells_.attached(), 0u);
}

}  // namespace
}  // namespace skiff::devices
