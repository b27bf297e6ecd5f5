// SPDX-License-Identifier: GPL-2.0-or-later
// A guest's disk that is served elsewhere: started and stopped by a driver, and over the death of
// its back end. The back end is Skiff's own, on threads of its own.
#include "devices/vhost_user/vhost_user_blk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <poll.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/vhost_user/frontend.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"
#include "loop/log.h"
#include "loop/worker_pool.h"
#include "tests/devices/vhost_user/served_disk.h"
#include "tests/temp_dir.h"

namespace skiff::devices {
namespace {

using ::testing::HasSubstr;

class VhostUserBlkTest : public ::testing::Test {
 protected:
  VhostUserBlkTest() { loop::set_log_level(loop::LogLevel::kOff); }
  void TearDown() override {
    if (!device_) return;
    stop();
    wait([this](std::function<void()> done) { device_->close(std::move(done)); });
    wait([this](const std::function<void()>& done) {
      device_.reset();
      done();
    });
  }

  // Begins something on the main loop and returns when it says that it is done.
  void wait(const std::function<void(std::function<void()>)>& work) {
    const auto done = loop::EventNotifier::create();
    main_->loop().post([&] { work([&] { done->notify(); }); });
    pollfd ready{.fd = done->fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ready, 1, 30'000), 1);
  }
  loop::Result<void> make() {
    auto result = loop::Result<void>();
    wait([&](const std::function<void()>& done) {
      auto device = VhostUserBlk::create({.main_loop = &main_->loop(),
                                          .pool = pool_.get(),
                                          .socket = dir_.path("socket"),
                                          .queues = 4,
                                          .queue_size = ServedDisk::kQueueSize,
                                          .memory = {memory_.regions().front()},
                                          .reconnect_ns = 1'000'000});
      if (!device) {
        result = device.error();
      } else {
        device_ = *std::move(device);
        device_->attach(transport_);
      }
      done();
    });
    return result;
  }
  void start() {
    device_->start({.features = device_->features() | kVirtioVersion1,
                    .queues = {driver_->layout(), QueueLayout{}}});
  }
  void stop() {
    const auto stopped = loop::EventNotifier::create();
    device_->stop([&] { stopped->notify(); });
    pollfd ready{.fd = stopped->fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ready, 1, 30'000), 1);
  }
  GuestAddress offer_flush() {
    const std::array<uint32_t, 4> header = {VIRTIO_BLK_T_FLUSH, 0, 0, 0};
    const GuestAddress status = driver_->allocate(1);
    memory_.memory().store(status, uint8_t{0xee});
    driver_->offer({driver_->allocate_with(std::as_bytes(std::span(header))),
                    DriverBuffer::writable(status, 1)});
    device_->doorbell(0).notify();
    return status;
  }
  void await_answers(uint16_t count) {
    // The interrupt is counted; nobody signals it to this thread.
    for (int tries = 0; tries < 30'000 && driver_->used_index() != count; ++tries)
      ::poll(nullptr, 0, 1);
    ASSERT_EQ(driver_->used_index(), count);
  }

  TempDir dir_;
  std::unique_ptr<loop::IoThread> main_ = *loop::IoThread::create({.name = "main"});
  std::unique_ptr<loop::WorkerPool> pool_ = *loop::WorkerPool::create({});
  FrontendMemory memory_ = *FrontendMemory::create(64 * 1024);
  std::optional<GuestDriver> driver_{std::in_place, memory_.memory(),
                                     GuestDriver::Options{.queue_size = ServedDisk::kQueueSize}};
  FakeTransport transport_;
  std::unique_ptr<VhostUserBlk> device_;
};

TEST_F(VhostUserBlkTest, DiskIsAsItsBackEndSays) {
  ServedDisk disk(dir_.path("socket"));
  const auto made = make();
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(device_->queue_count(), 2);  // As many as there are.
  virtio_blk_config config = {};
  device_->read_config(0, {reinterpret_cast<uint8_t*>(&config), sizeof(config)});
  EXPECT_EQ(config.capacity, 64u);
  EXPECT_EQ(config.num_queues, 2);
  EXPECT_EQ(config.seg_max, ServedDisk::kQueueSize - 2u);
  EXPECT_NE(device_->features() & (uint64_t{1} << VIRTIO_BLK_F_FLUSH), 0u);
}

TEST_F(VhostUserBlkTest, NobodyThereIsSaidSo) {
  const auto made = make();
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message(), HasSubstr("socket"));
}

TEST_F(VhostUserBlkTest, DriverStartsStopsAndStartsAgain) {
  ServedDisk disk(dir_.path("socket"));
  ASSERT_TRUE(make());
  start();
  const GuestAddress first = offer_flush();
  await_answers(1);
  EXPECT_EQ(memory_.memory().load<uint8_t>(first), VIRTIO_BLK_S_OK);
  stop();
  driver_.emplace(memory_.memory(), GuestDriver::Options{.queue_size = ServedDisk::kQueueSize});
  start();
  offer_flush();
  await_answers(1);
}

TEST_F(VhostUserBlkTest, RequestsOutliveTheirBackEnd) {
  std::optional<ServedDisk> disk(std::in_place, dir_.path("socket"));
  ASSERT_TRUE(make());
  start();
  offer_flush();
  await_answers(1);
  disk.reset();
  const GuestAddress status = offer_flush();
  disk.emplace(dir_.path("socket"));
  await_answers(2);
  EXPECT_EQ(memory_.memory().load<uint8_t>(status), VIRTIO_BLK_S_OK);
}

TEST_F(VhostUserBlkTest, DriverMayStopAndStartWhileNobodyServesIt) {
  std::optional<ServedDisk> disk(std::in_place, dir_.path("socket"));
  ASSERT_TRUE(make());
  start();
  offer_flush();
  await_answers(1);
  disk.reset();
  stop();
  driver_.emplace(memory_.memory(), GuestDriver::Options{.queue_size = ServedDisk::kQueueSize});
  start();
  offer_flush();
  disk.emplace(dir_.path("socket"));
  await_answers(1);
}

TEST_F(VhostUserBlkTest, NewSizeReachesTheDriver) {
  ServedDisk disk(dir_.path("socket"));
  ASSERT_TRUE(make());
  start();
  disk.device().capacity_changed();
  for (int tries = 0; tries < 30'000 && transport_.config_interrupts() == 0; ++tries)
    ::poll(nullptr, 0, 1);
  EXPECT_EQ(transport_.config_interrupts(), 1u);
}

}  // namespace
}  // namespace skiff::devices
