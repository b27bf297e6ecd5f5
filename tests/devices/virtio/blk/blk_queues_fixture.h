// SPDX-License-Identifier: GPL-2.0-or-later
// BlkQueuesFixture: a virtio-blk device with several queues, each with a driver of its own, and
// several loops that all turn on the test's thread.
//
// Thread: the test's.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/testing/manual_loop.h"
#include "tests/devices/virtio/blk/blk_fixture.h"

namespace skiff::devices {

class BlkQueuesFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t kArenaBytes = 64 * 1024;
  static constexpr uint16_t kQueueSize = 16;

  // A request the driver of a queue has offered.
  struct Offered {
    QueueIndex queue = 0;
    uint16_t head = 0;
    GuestAddress status;
  };

  // As many queues as homes.
  void make(const std::vector<QueueHome>& homes) {
    auto device = VirtioBlk::create({.queues = homes,
                                     .memory = &memory_.memory(),
                                     .image = &image_,
                                     .queue_size = kQueueSize,
                                     .errors = errors_});
    ASSERT_TRUE(device) << device.error().message();
    device_ = *std::move(device);
    device_->attach(transport_);
    drivers_.resize(homes.size());
  }
  QueueLayout make_driver(QueueIndex queue, uint64_t features = kVirtioRingEventIdx) {
    drivers_[queue] = std::make_unique<GuestDriver>(
        memory_, GuestDriver::Options{.queue_size = kQueueSize,
                                      .features = features,
                                      .base = GuestAddress{queue * kArenaBytes},
                                      .arena_bytes = kArenaBytes});
    return drivers_[queue]->layout();
  }
  void start() {
    VirtioStart start{.features = device_->features() | kVirtioRingEventIdx | kVirtioVersion1,
                      .queues = {}};
    for (QueueIndex i = 0; i < drivers_.size(); ++i) start.queues.push_back(make_driver(i));
    device_->start(start);
    turn();
  }
  void make_and_start(const std::vector<QueueHome>& homes) {
    ASSERT_NO_FATAL_FAILURE(make(homes));
    start();
  }
  void TearDown() override {
    if (!device_) return;
    bool stopped = false;
    device_->stop([&] { stopped = true; });
    for (int round = 0; round < 100 && !stopped; ++round) {
      turn();
      fail_all();
    }
    EXPECT_TRUE(stopped);
    EXPECT_FALSE(image_.has_channel());
  }

  // All loops until none has anything to do.
  void turn() {
    for (int round = 0; round < 8; ++round)
      for (auto& loop : loops_) loop.run_until_idle();
  }
  Offered offer_read(QueueIndex queue, uint64_t sector = 0) {
    GuestDriver& driver = *drivers_[queue];
    const BlkHeader header{.type = VIRTIO_BLK_T_IN, .sector = sector};
    const GuestAddress status = driver.allocate(1);
    memory_.memory().store(status, uint8_t{0xee});
    const uint16_t head = driver.offer({driver.allocate_with(bytes_of(header)),
                                        DriverBuffer::writable(driver.allocate(512), 512),
                                        DriverBuffer::writable(status, 1)});
    return {queue, head, status};
  }
  // As the guest's write would arrive, if the device wants to hear of it.
  void kick_if_wanted(QueueIndex queue) {
    if (drivers_[queue]->kick_wanted()) kick(queue);
  }
  void kick(QueueIndex queue) {
    if (transport_.doorbell_path(queue) == DoorbellPath::kExit)
      device_->kick(queue);
    else
      device_->doorbell(queue).notify();
  }
  uint8_t status(const Offered& offered) const {
    return memory_.memory().load<uint8_t>(offered.status).value_or(0xff);
  }
  size_t pending_on(size_t loop) {
    const block::FakeChannel* channel = image_.channel_on(loops_[loop].loop());
    return channel == nullptr ? 0 : channel->pending().size();
  }
  void complete_all() {
    for (block::FakeChannel* channel : image_.channels())
      while (channel->in_flight() > 0) channel->complete(0);
    turn();
  }
  void fail_all() {
    for (block::FakeChannel* channel : image_.channels())
      while (channel->in_flight() > 0) channel->fail(0, -EIO);
  }
  QueueHome io_thread(size_t loop) { return {&loops_[loop].loop(), SubmitMode::kIoThread}; }
  QueueHome vcpu(size_t loop) { return {&loops_[loop].loop(), SubmitMode::kVcpu}; }

  std::vector<loop::ManualLoop> loops_{3};
  FakeGuestMemory memory_{1 << 20};
  FakeTransport transport_;
  block::FakeBackend image_{{.sectors = 64}};
  block::ErrorPolicies errors_;
  std::vector<std::unique_ptr<GuestDriver>> drivers_;
  std::unique_ptr<VirtioBlk> device_;
};

}  // namespace skiff::devices
