// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/virtio_registers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "devices/testing/fake_virtio_device.h"
#include "devices/virtio/virtio_device.h"
#include "loop/thread.h"

namespace skiff::devices {
namespace {

constexpr uint8_t kUpToFeatures = kVirtioAcknowledge | kVirtioDriver | kVirtioFeaturesOk;

class FakeSide final : public VirtioRegisters::Transport {
 public:
  void on_start(const VirtioStart& /*start*/) override { ++starts; }
  void on_stop() override { ++stops; }
  void on_stopped() override { ++stopped; }
  void on_queue_start(QueueIndex queue) override { queue_events_.push_back("start" + text(queue)); }
  void on_queue_stop(QueueIndex queue) override { queue_events_.push_back("stop" + text(queue)); }
  void on_queue_stopped(QueueIndex queue) override {
    queue_events_.push_back("stopped" + text(queue));
  }
  void send_config_interrupt() override { ++interrupts; }

  std::atomic<uint32_t> starts{0};
  std::atomic<uint32_t> stops{0};
  std::atomic<uint32_t> stopped{0};
  std::atomic<uint32_t> interrupts{0};
  std::vector<std::string> queue_events_;

 private:
  static std::string text(QueueIndex queue) { return " " + std::to_string(queue); }
};

class VirtioRegistersTest : public ::testing::Test {
 protected:
  void write_features(uint64_t features) {
    for (uint32_t word = 0; word < 2; ++word) {
      registers_.select_driver_features(word);
      registers_.write_driver_features(static_cast<uint32_t>(features >> (32 * word)));
    }
  }
  void negotiate(uint64_t features = kVirtioVersion1) {
    registers_.write_status(kVirtioAcknowledge | kVirtioDriver);
    write_features(features);
    registers_.write_status(kUpToFeatures);
  }
  void run() {
    negotiate();
    registers_.write_status(kUpToFeatures | kVirtioDriverOk);
  }

  explicit VirtioRegistersTest(uint64_t features = 0)
      : device_({.features = 0x21 | features, .queues = 2, .queue_size_max = 128}) {}

  FakeVirtioDevice device_;
  FakeSide side_;
  VirtioRegisters registers_{device_, side_};
};

TEST_F(VirtioRegistersTest, RingFeaturesAreOfferedBesidesTheDevicesOwn) {
  EXPECT_EQ(registers_.device_features(), 0x3000'0021u);
  registers_.select_device_features(1);
  EXPECT_EQ(registers_.device_features(), 1u);
  registers_.select_device_features(2);
  EXPECT_EQ(registers_.device_features(), 0u);
  registers_.select_device_features(~uint32_t{0});
  EXPECT_EQ(registers_.device_features(), 0u);
}

TEST_F(VirtioRegistersTest, FeaturesWithoutVersion1AreRefused) {
  negotiate(0x21);
  EXPECT_EQ(registers_.status(), kVirtioAcknowledge | kVirtioDriver);
}

TEST_F(VirtioRegistersTest, FeaturesThatWereNotOfferedAreRefused) {
  negotiate(kVirtioVersion1 | 2);
  EXPECT_EQ(registers_.status() & kVirtioFeaturesOk, 0);
  write_features(kVirtioVersion1);
  registers_.select_driver_features(2);
  registers_.write_driver_features(1);  // Bit 64.
  registers_.write_status(kUpToFeatures);
  EXPECT_EQ(registers_.status() & kVirtioFeaturesOk, 0);
  registers_.write_status(0);
  negotiate();
  EXPECT_EQ(registers_.status() & kVirtioFeaturesOk, kVirtioFeaturesOk);
}

TEST_F(VirtioRegistersTest, FeaturesAreSettledByFeaturesOk) {
  negotiate(kVirtioVersion1 | 1);
  write_features(kVirtioVersion1 | 0x20);
  registers_.write_status(kUpToFeatures | kVirtioDriverOk);
  ASSERT_EQ(device_.starts().size(), 1u);
  EXPECT_EQ(device_.starts()[0].features, kVirtioVersion1 | 1);
}

TEST_F(VirtioRegistersTest, DriverOkStartsTheDeviceWithTheQueuesThatAreEnabled) {
  negotiate();
  registers_.select_queue(1);
  registers_.write_queue_size(64);
  registers_.write_queue_address(VirtioRegisters::QueueArea::kDescriptors, 0x1000, ~uint64_t{0});
  registers_.write_queue_address(VirtioRegisters::QueueArea::kAvailable, ~uint64_t{0}, 0xffff'ffff);
  registers_.write_queue_address(VirtioRegisters::QueueArea::kUsed, ~uint64_t{0}, ~uint64_t{0});
  registers_.write_queue_enable(true);
  registers_.write_status(kUpToFeatures | kVirtioDriverOk);
  ASSERT_EQ(device_.starts().size(), 1u);
  const VirtioStart start = device_.starts()[0];
  ASSERT_EQ(start.queues.size(), 2u);
  EXPECT_EQ(start.queues[0].size, 0u);
  EXPECT_EQ(start.queues[1].size, 64u);
  EXPECT_EQ(start.queues[1].descriptors.value, 0x1000u);
  EXPECT_EQ(start.queues[1].available.value, 0xffff'ffffu);
  EXPECT_EQ(start.queues[1].used.value, ~uint64_t{0});  // The device's to refuse.
  EXPECT_EQ(side_.starts, 1u);
}

TEST_F(VirtioRegistersTest, DriverOkBeforeFeaturesOkIsRefusedAndNeedsAReset) {
  registers_.write_status(kVirtioAcknowledge | kVirtioDriver | kVirtioDriverOk);
  EXPECT_EQ(registers_.status(), kVirtioAcknowledge | kVirtioDriver | kVirtioNeedsReset);
  negotiate();
  registers_.write_status(kUpToFeatures | kVirtioDriverOk);
  EXPECT_TRUE(device_.starts().empty());
  registers_.write_status(0);
  run();
  EXPECT_EQ(device_.starts().size(), 1u);
}

TEST_F(VirtioRegistersTest, StatusBitsCannotBeClearedOneByOne) {
  run();
  registers_.write_status(kVirtioAcknowledge);
  EXPECT_EQ(registers_.status(), kUpToFeatures | kVirtioDriverOk);
  registers_.write_status(0x30 | kVirtioNeedsReset);  // Reserved bits, and the device's.
  EXPECT_EQ(registers_.status(), kUpToFeatures | kVirtioDriverOk);
  registers_.write_status(kVirtioFailed);
  EXPECT_EQ(registers_.status(), kUpToFeatures | kVirtioDriverOk | kVirtioFailed);
  EXPECT_EQ(device_.starts().size(), 1u);
  EXPECT_EQ(device_.stops(), 0u);
}

TEST_F(VirtioRegistersTest, QueueSizesThatCannotBeLeaveTheOldOne) {
  for (const uint32_t size : {0u, 3u, 96u, 256u, 0x1'0000u, 0x1'0080u, ~0u}) {
    registers_.write_queue_size(size);
    EXPECT_EQ(registers_.queue_size(), 128u) << size;
  }
  registers_.write_queue_size(1);
  EXPECT_EQ(registers_.queue_size(), 1u);
}

TEST_F(VirtioRegistersTest, QueuesThatAreNotThereTakeNothing) {
  for (const uint16_t queue : {uint16_t{2}, uint16_t{0xffff}}) {
    registers_.select_queue(queue);
    registers_.write_queue_size(1);
    registers_.write_queue_enable(true);
    registers_.write_queue_address(VirtioRegisters::QueueArea::kUsed, 1, ~uint64_t{0});
    EXPECT_EQ(registers_.queue_size(), 0u);
    EXPECT_EQ(registers_.queue_size_max(), 0u);
    EXPECT_FALSE(registers_.is_queue_enabled());
    EXPECT_EQ(registers_.queue_address(VirtioRegisters::QueueArea::kUsed), 0u);
  }
}

TEST_F(VirtioRegistersTest, QueueSetUpAfterDriverOkIsIgnored) {
  run();
  registers_.write_queue_enable(true);
  registers_.write_queue_size(1);
  registers_.write_queue_address(VirtioRegisters::QueueArea::kUsed, 1, ~uint64_t{0});
  EXPECT_FALSE(registers_.is_queue_enabled());
  EXPECT_EQ(registers_.queue_size(), 128u);
  EXPECT_EQ(registers_.queue_address(VirtioRegisters::QueueArea::kUsed), 0u);
}

TEST_F(VirtioRegistersTest, StatusReadsZeroOnlyWhenTheDeviceHasStopped) {
  device_.hold_stops();
  run();
  registers_.write_status(0);
  EXPECT_EQ(device_.stops(), 1u);
  EXPECT_EQ(registers_.status(), kUpToFeatures | kVirtioDriverOk);
  registers_.write_status(0);  // Once is enough.
  registers_.write_status(kVirtioAcknowledge);
  run();  // Too early.
  EXPECT_EQ(device_.stops(), 1u);
  EXPECT_EQ(device_.starts().size(), 1u);
  EXPECT_TRUE(device_.finish_stop());
  EXPECT_EQ(registers_.status(), 0u);
  EXPECT_EQ(side_.stopped, 1u);
  run();
  EXPECT_EQ(device_.starts().size(), 2u);
}

TEST_F(VirtioRegistersTest, ResetPutsAllRegistersBack) {
  negotiate();
  registers_.select_queue(1);
  registers_.write_queue_size(64);
  registers_.write_queue_enable(true);
  registers_.write_status(kUpToFeatures | kVirtioDriverOk);
  registers_.write_status(0);
  EXPECT_EQ(registers_.selected_queue(), 0u);
  registers_.select_queue(1);
  EXPECT_EQ(registers_.queue_size(), 128u);
  EXPECT_FALSE(registers_.is_queue_enabled());
  registers_.select_driver_features(1);
  EXPECT_EQ(registers_.driver_features(), 0u);
}

TEST_F(VirtioRegistersTest, EveryoneWhoAsksForAResetHearsOfItsEnd) {
  device_.hold_stops();
  run();
  int heard = 0;
  registers_.write_status(0);
  registers_.request_reset([&] { ++heard; });
  registers_.request_reset([&] { ++heard; });
  EXPECT_EQ(heard, 0);
  device_.finish_stop();
  EXPECT_EQ(heard, 2);
  registers_.request_reset([&] { ++heard; });  // Not started: at once.
  EXPECT_EQ(heard, 3);
  EXPECT_EQ(device_.stops(), 1u);
}

TEST_F(VirtioRegistersTest, ResetDuringTheStartStopsTheDeviceAfterIt) {
  device_.set_on_start([this] {
    registers_.write_status(0);
    EXPECT_EQ(device_.stops(), 0u);
  });
  run();
  EXPECT_EQ(device_.stops(), 1u);
  EXPECT_EQ(registers_.status(), 0u);
}

TEST_F(VirtioRegistersTest, DeviceThatCannotUseTheQueuesAsksForAResetFromItsStart) {
  device_.set_on_start([this] { registers_.need_reset(); });
  run();
  EXPECT_EQ(registers_.status(), kUpToFeatures | kVirtioDriverOk | kVirtioNeedsReset);
  EXPECT_EQ(side_.interrupts, 1u);
  registers_.need_reset();
  EXPECT_EQ(side_.interrupts, 1u);
}

TEST_F(VirtioRegistersTest, NeedForAResetMeansNothingWhenTheDeviceIsDown) {
  registers_.need_reset();
  EXPECT_EQ(registers_.status(), 0u);
  device_.hold_stops();
  run();
  registers_.write_status(0);
  registers_.need_reset();
  EXPECT_EQ(registers_.status() & kVirtioNeedsReset, 0);
  device_.finish_stop();
  EXPECT_EQ(side_.interrupts, 0u);
}

TEST_F(VirtioRegistersTest, ChangedConfigurationHasANewGeneration) {
  const uint8_t before = registers_.config_generation();
  registers_.config_changed();
  EXPECT_NE(registers_.config_generation(), before);
  EXPECT_EQ(side_.interrupts, 1u);
}

// FakeVirtioDevice checks that starts and stops alternate.
TEST_F(VirtioRegistersTest, VcpusThatRaceOverTheStatusStartAndStopInTurn) {
  const auto drive = [this] {
    for (int i = 0; i < 500; ++i) {
      run();
      registers_.need_reset();
      registers_.write_status(0);
    }
  };
  {
    loop::Thread one = loop::Thread::create({.name = "vcpu-1"}, drive).value();
    loop::Thread two = loop::Thread::create({.name = "vcpu-2"}, drive).value();
  }
  registers_.write_status(0);
  EXPECT_EQ(registers_.status(), 0u);
  EXPECT_FALSE(device_.is_running());
  EXPECT_EQ(device_.starts().size(), device_.stops());
  EXPECT_EQ(side_.starts, side_.stops);
}

// virtio 1.2, 2.6.1 and 4.1.4.3.
class VirtioQueueResetTest : public VirtioRegistersTest {
 protected:
  VirtioQueueResetTest() : VirtioRegistersTest(kVirtioRingReset) {}
  void run_with_queue_1(uint64_t features = kVirtioVersion1 | kVirtioRingReset) {
    negotiate(features);
    registers_.select_queue(1);
    registers_.write_queue_size(64);
    registers_.write_queue_enable(true);
    registers_.write_status(kUpToFeatures | kVirtioDriverOk);
  }
};

TEST_F(VirtioQueueResetTest, QueueIsAsAfterPowerOnWhenTheDeviceSaysSo) {
  device_.hold_stops();
  run_with_queue_1();
  registers_.reset_queue();
  EXPECT_TRUE(registers_.is_queue_resetting());
  EXPECT_TRUE(registers_.is_queue_enabled());
  registers_.write_queue_size(32);  // Not yet.
  registers_.reset_queue();
  EXPECT_EQ(device_.queue_resets(), std::vector<QueueIndex>{1});
  ASSERT_TRUE(device_.finish_queue_reset());
  EXPECT_FALSE(registers_.is_queue_resetting());
  EXPECT_FALSE(registers_.is_queue_enabled());
  EXPECT_EQ(registers_.queue_size(), 128u);
  EXPECT_TRUE(device_.is_running());
  EXPECT_THAT(side_.queue_events_, testing::ElementsAre("stop 1", "stopped 1"));
  device_.finish_stop();
}

TEST_F(VirtioQueueResetTest, QueueStartsAgainWithAnotherSetUp) {
  run_with_queue_1();
  registers_.reset_queue();
  registers_.write_queue_enable(false);
  registers_.write_queue_size(32);
  registers_.write_queue_address(VirtioRegisters::QueueArea::kUsed, 0x4000, ~uint64_t{0});
  registers_.write_queue_enable(true);
  EXPECT_TRUE(registers_.is_queue_enabled());
  ASSERT_EQ(device_.queue_starts().size(), 1u);
  EXPECT_EQ(device_.queue_starts()[0].first, 1u);
  EXPECT_EQ(device_.queue_starts()[0].second.size, 32u);
  EXPECT_EQ(device_.queue_starts()[0].second.used.value, 0x4000u);
  EXPECT_EQ(side_.queue_events_.back(), "start 1");
  registers_.write_queue_size(64);  // At work again.
  registers_.write_queue_enable(true);
  EXPECT_EQ(registers_.queue_size(), 32u);
  EXPECT_EQ(device_.queue_starts().size(), 1u);
}

TEST_F(VirtioQueueResetTest, DriverThatDidNotAgreeToItResetsNothing) {
  run_with_queue_1(kVirtioVersion1);
  registers_.reset_queue();
  EXPECT_TRUE(device_.queue_resets().empty());
  EXPECT_TRUE(registers_.is_queue_enabled());
}

TEST_F(VirtioQueueResetTest, QueueThatDoesNotExistAndADeviceThatDoesNotRunResetNothing) {
  negotiate(kVirtioVersion1 | kVirtioRingReset);
  registers_.reset_queue();
  registers_.write_status(kUpToFeatures | kVirtioDriverOk);
  registers_.select_queue(2);
  registers_.reset_queue();
  registers_.select_queue(0xffff);
  registers_.reset_queue();
  EXPECT_TRUE(device_.queue_resets().empty());
  EXPECT_FALSE(registers_.is_queue_resetting());
}

TEST_F(VirtioQueueResetTest, ResetOfTheDeviceMeanwhileForgetsIt) {
  device_.hold_stops();
  run_with_queue_1();
  registers_.reset_queue();
  registers_.write_status(0);
  ASSERT_TRUE(device_.finish_queue_reset());
  ASSERT_TRUE(device_.finish_stop());
  EXPECT_EQ(registers_.status(), 0u);
  registers_.select_queue(1);
  registers_.write_queue_enable(true);  // Set-up of the next session.
  EXPECT_TRUE(device_.queue_starts().empty());
}

}  // namespace
}  // namespace skiff::devices
