// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/virtio_mmio.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/core/bus.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/fake_virtio_device.h"
#include "devices/testing/run_task.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "devices/virtio/virtio_device.h"
#include "loop/testing/manual_loop.h"
#include "loop/thread.h"

namespace skiff::devices {
namespace {

constexpr uint32_t kFeaturesOk = kVirtioAcknowledge | kVirtioDriver | kVirtioFeaturesOk;
constexpr uint64_t kBase = 0xd000'0000;

class VirtioMmioTest : public ::testing::Test {
 protected:
  ~VirtioMmioTest() override { EXPECT_TRUE(run_task(transport_->reset())); }

  uint64_t read(uint64_t offset, uint32_t size = 4) {
    std::array<uint8_t, 8> data{};
    transport_->bus_read(offset, std::span(data).first(size));
    return load_le(data);
  }
  void write(uint64_t offset, uint64_t value, uint32_t size = 4) {
    std::array<uint8_t, 8> data{};
    store_le(data, value);
    transport_->bus_write(offset, std::span(data).first(size));
  }
  // As virtio_mmio: features, queues, ready.
  void run() {
    write(0x070, 0);
    write(0x070, kVirtioAcknowledge | kVirtioDriver);
    write(0x024, 1);
    write(0x020, 1);
    write(0x070, kFeaturesOk);
    ASSERT_EQ(read(0x070), kFeaturesOk);
    for (uint32_t queue = 0; queue < 2; ++queue) {
      write(0x030, queue);
      ASSERT_EQ(read(0x044), 0u);
      write(0x038, 64);
      for (const uint64_t area : {0x080u, 0x090u, 0x0a0u}) {
        write(area, area);
        write(area + 4, queue + 1);
      }
      write(0x044, 1);
      ASSERT_EQ(read(0x044), 1u);
    }
    write(0x070, kFeaturesOk | kVirtioDriverOk);
  }

  loop::ManualLoop loop_;
  FakeIrqLine irq_;
  FakeDoorbellHub doorbells_;
  FakeVirtioDevice device_{{.id = VirtioId::kEntropy}};
  std::unique_ptr<VirtioMmio> transport_ = VirtioMmio::create(
      {.device = device_, .doorbells = doorbells_, .irq = irq_, .main_loop = loop_, .base = kBase});
};

TEST_F(VirtioMmioTest, IdentityIsThatOfAModernDevice) {
  EXPECT_EQ(read(0x000), 0x7472'6976u);
  EXPECT_EQ(read(0x004), 2u);
  EXPECT_EQ(read(0x008), 4u);
  EXPECT_EQ(read(0x034), 256u);
  EXPECT_EQ(read(0x0b0), 0xffff'ffffu);  // No shared memory.
  EXPECT_EQ(read(0x0bc), 0xffff'ffffu);
}

TEST_F(VirtioMmioTest, DriverBringsTheDeviceUp) {
  run();
  ASSERT_EQ(device_.starts().size(), 1u);
  const QueueLayout queue = device_.starts()[0].queues[1];
  EXPECT_EQ(queue.size, 64u);
  EXPECT_EQ(queue.descriptors.value, 0x2'0000'0080u);
  EXPECT_EQ(queue.available.value, 0x2'0000'0090u);
  EXPECT_EQ(queue.used.value, 0x2'0000'00a0u);
}

TEST_F(VirtioMmioTest, QueuesShareAnAddressAndTheirNumberRingsTheDoorbell) {
  run();
  EXPECT_EQ(doorbells_.attached(), 2u);
  EXPECT_TRUE(doorbells_.ring(kBase + 0x050, 4, 1));
  EXPECT_TRUE(device_.doorbell(1).consume());
  EXPECT_FALSE(device_.doorbell(0).consume());
  EXPECT_FALSE(doorbells_.ring(kBase + 0x050, 4, 2));
  write(0x050, 0);  // One that came as an exit.
  EXPECT_TRUE(device_.doorbell(0).consume());
  write(0x050, 0xffff'ffff);
  write(0x070, 0);
  EXPECT_EQ(doorbells_.attached(), 0u);
  write(0x050, 0);
  EXPECT_FALSE(device_.doorbell(0).consume());
}

TEST_F(VirtioMmioTest, LineIsHighUntilEverythingIsAcknowledged) {
  run();
  device_.transport().interrupt_queue(1);
  device_.transport().interrupt_config();
  EXPECT_EQ(read(0x060), 3u);
  EXPECT_TRUE(irq_.high());
  write(0x064, 1);
  EXPECT_EQ(read(0x060), 2u);
  EXPECT_TRUE(irq_.high());
  write(0x064, 2);
  EXPECT_FALSE(irq_.high());
}

TEST_F(VirtioMmioTest, ResetLowersTheLine) {
  run();
  device_.transport().interrupt_queue(0);
  write(0x070, 0);
  EXPECT_EQ(read(0x060), 0u);
  EXPECT_FALSE(irq_.high());
}

TEST_F(VirtioMmioTest, BrokenQueueIsSeenInTheStatusAndInterrupts) {
  run();
  device_.transport().need_reset();
  EXPECT_NE(read(0x070) & kVirtioNeedsReset, 0u);
  EXPECT_EQ(read(0x060), 2u);
}

TEST_F(VirtioMmioTest, WriteOfTheResetReturnsOnlyWhenTheDeviceHasStopped) {
  run();
  device_.hold_stops();
  std::atomic<bool> has_returned{false};
  {
    loop::Thread vcpu = loop::Thread::create({.name = "vcpu"}, [&] {
                          write(0x070, 0);
                          has_returned = true;
                        }).value();
    while (device_.stops() == 0) {
    }
    EXPECT_FALSE(has_returned);
    EXPECT_NE(read(0x070), 0u);  // Another vCPU is served meanwhile.
    EXPECT_TRUE(device_.finish_stop());
  }
  EXPECT_TRUE(has_returned);
  EXPECT_EQ(read(0x070), 0u);
}

TEST_F(VirtioMmioTest, HighBitsOfTheStatusAreNoReset) {
  run();
  write(0x070, 0x100);
  EXPECT_EQ(device_.stops(), 0u);
}

TEST_F(VirtioMmioTest, MachineResetWaitsForTheStop) {
  run();
  device_.transport().interrupt_queue(0);
  device_.hold_stops();
  bool has_ended = false;
  start_task(transport_->reset(), has_ended);
  EXPECT_FALSE(has_ended);
  device_.finish_stop();
  loop_.run_until_idle();
  EXPECT_TRUE(has_ended);
  EXPECT_EQ(read(0x070), 0u);
  EXPECT_FALSE(irq_.high());
}

TEST_F(VirtioMmioTest, ControlRegistersAnswerOnlyAlignedWords) {
  EXPECT_EQ(read(0x000, 1), 0xffu);
  EXPECT_EQ(read(0x000, 8), ~uint64_t{0});
  EXPECT_EQ(read(0x002, 4), 0xffff'ffffu);
  write(0x070, kVirtioAcknowledge, 1);
  write(0x070, kVirtioAcknowledge, 8);
  write(0x06e, kVirtioAcknowledge << 16);
  EXPECT_EQ(read(0x070), 0u);
  EXPECT_EQ(read(0x0fe, 4), 0xffff'ffffu);
}

TEST_F(VirtioMmioTest, QueueNumbersAreNotCutOff) {
  write(0x030, 0x1'0000);
  EXPECT_EQ(read(0x034), 0u);
  write(0x030, 1);
  write(0x038, 0x1'0040);
  write(0x044, 1);
  EXPECT_EQ(read(0x044), 1u);
  write(0x044, 0);  // Allowed before the device runs.
  EXPECT_EQ(read(0x044), 0u);
}

TEST_F(VirtioMmioTest, ConfigurationIsReadAtAnySizeWithAGeneration) {
  EXPECT_EQ(read(0x100, 8), 0x0807'0605'0403'0201u);
  EXPECT_EQ(read(0x103, 2), 0x0504u);
  EXPECT_EQ(read(0xff8, 8), 0u);
  write(0x101, 0x77, 1);
  EXPECT_EQ(read(0x100, 2), 0x7701u);
  const uint64_t generation = read(0x0fc);
  device_.transport().interrupt_config();
  EXPECT_NE(read(0x0fc), generation);
}

// The line and the status agree in the end, whoever came last.
TEST_F(VirtioMmioTest, InterruptsThatRaceWithAcknowledgementsLeaveTheLineRight) {
  run();
  std::atomic<bool> ends{false};
  {
    loop::Thread device = loop::Thread::create({.name = "io"}, [&] {
                            while (!ends) device_.transport().interrupt_queue(0);
                          }).value();
    for (int i = 0; i < 2000; ++i) write(0x064, read(0x060));
    ends = true;
  }
  EXPECT_EQ(irq_.high(), read(0x060) != 0);
  write(0x064, 3);
  EXPECT_FALSE(irq_.high());
}

TEST(VirtioMmioQueueResetTest, RegisterReadsOneUntilItIsDone) {
  loop::ManualLoop loop;
  FakeIrqLine irq;
  FakeDoorbellHub doorbells;
  FakeVirtioDevice device({.features = kVirtioRingReset});
  const auto transport = VirtioMmio::create(
      {.device = device, .doorbells = doorbells, .irq = irq, .main_loop = loop, .base = kBase});
  const auto write = [&](uint64_t offset, uint32_t value) {
    std::array<uint8_t, 4> data{};
    store_le(data, value);
    transport->bus_write(offset, data);
  };
  const auto read = [&](uint64_t offset) {
    std::array<uint8_t, 4> data{};
    transport->bus_read(offset, data);
    return load_le(data);
  };
  write(0x070, kVirtioAcknowledge | kVirtioDriver);
  write(0x024, 1);
  write(0x020, 1 | static_cast<uint32_t>(kVirtioRingReset >> 32));
  write(0x070, kFeaturesOk);
  write(0x030, 1);
  write(0x044, 1);
  write(0x070, kFeaturesOk | kVirtioDriverOk);
  device.hold_stops();
  write(0x0c0, 1);
  EXPECT_EQ(read(0x0c0), 1u);
  device.finish_queue_reset();
  EXPECT_EQ(read(0x0c0), 0u);
  EXPECT_EQ(read(0x044), 0u);
  write(0x044, 1);
  EXPECT_EQ(device.queue_starts().size(), 1u);
  EXPECT_EQ(doorbells.attached(), 1u);
  bool has_ended = false;
  start_task(transport->reset(), has_ended);
  device.finish_stop();
  loop.run_until_idle();
  EXPECT_TRUE(has_ended);
}

}  // namespace
}  // namespace skiff::devices
