// SPDX-License-Identifier: GPL-2.0-or-later
// A guest's disk that is served elsewhere: started and stopped by a driver, and over the death of
// its back end. The back end is Skiff's own, on threads of its own.
#include "devices/vhost_user/vhost_user_blk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/vhost_user/frontend.h"
#include "devices/vhost_user/protocol.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "tests/devices/vhost_user/scripted_backend.h"
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
    ASSERT_TRUE(done->consume());
  }
  loop::Result<void> make(int64_t timeout_ns = 20'000'000'000) {
    auto result = loop::Result<void>();
    wait([&](const std::function<void()>& done) {
      auto device = VhostUserBlk::create({.main_loop = &main_->loop(),
                                          .pool = pool_.get(),
                                          .socket = dir_.path("socket"),
                                          .queues = 4,
                                          .queue_size = ServedDisk::kQueueSize,
                                          .memory = {memory_.regions().front()},
                                          .timeout_ns = timeout_ns,
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
    std::vector<QueueLayout> queues(device_->queue_count());
    queues[0] = driver_->layout();
    device_->start({.features = device_->features() | kVirtioVersion1, .queues = queues});
  }
  void stop() {
    const auto stopped = loop::EventNotifier::create();
    device_->stop([&] { stopped->notify(); });
    pollfd ready{.fd = stopped->fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ready, 1, 30'000), 1);
    ASSERT_TRUE(stopped->consume());
  }
  // Until all that the main loop has begun with what has come so far is done.
  void pass_by_main_loop() {
    wait([](const std::function<void()>& done) { done(); });
  }
  void write_wce(uint8_t value) const {
    device_->write_config(offsetof(virtio_blk_config, wce), {&value, 1});
  }
  uint8_t read_wce() const {
    uint8_t value = 0xee;
    device_->read_config(offsetof(virtio_blk_config, wce), {&value, 1});
    return value;
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

TEST_F(VhostUserBlkTest, ResetLastsUntilABackEndThatDoesNotAnswerHasLetGo) {
  ScriptedBackend backend(dir_.path("socket"));
  backend.leave_unanswered(VhostRequest::kGetVringBase);
  backend.outstay();
  ASSERT_TRUE(make(1'000'000'000));
  start();
  ASSERT_TRUE(backend.await(VhostRequest::kSetVringEnable, 1));
  const auto stopped = loop::EventNotifier::create();
  device_->stop([&] { stopped->notify(); });
  ASSERT_TRUE(backend.await_leave());
  // Sent away, but it may still be at work on the guest's memory.
  pass_by_main_loop();
  pollfd ready{.fd = stopped->fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&ready, 1, 0), 0);
  EXPECT_FALSE(backend.comes_soon(VhostRequest::kGetFeatures, 2));
  backend.hang_up();
  EXPECT_EQ(::poll(&ready, 1, 30'000), 1);
  EXPECT_TRUE(stopped->consume());
}

TEST_F(VhostUserBlkTest, NobodyElseServesARingThatALostBackEndMayStillServe) {
  ScriptedBackend backend(dir_.path("socket"));
  ASSERT_TRUE(make(1'000'000'000));
  start();
  ASSERT_TRUE(backend.await(VhostRequest::kSetVringEnable, 1));
  backend.outstay();
  backend.leave_unanswered(VhostRequest::kSetConfig);
  write_wce(0);
  ASSERT_TRUE(backend.await_leave());
  backend.leave_unanswered({});
  EXPECT_FALSE(backend.comes_soon(VhostRequest::kGetFeatures, 2));
  backend.hang_up();
  EXPECT_TRUE(backend.await(VhostRequest::kSetVringEnable, 2));
  stop();
}

TEST_F(VhostUserBlkTest, StartThatFailsAtTheInflightLogLeavesNobodyWithoutOne) {
  ScriptedBackend backend(dir_.path("socket"));
  backend.hang_up_on(VhostRequest::kGetInflightFd);
  ASSERT_TRUE(make());
  start();
  ASSERT_TRUE(backend.await(VhostRequest::kSetVringEnable, 2));
  EXPECT_EQ(backend.count(VhostRequest::kGetInflightFd, 2), 1u);
  EXPECT_EQ(backend.count(VhostRequest::kSetInflightFd, 2), 1u);
}

// And one that fails behind it goes on with the log that the rings may have begun with.
TEST_F(VhostUserBlkTest, StartThatFailsLaterKeepsItsInflightLog) {
  ScriptedBackend backend(dir_.path("socket"));
  backend.hang_up_on(VhostRequest::kSetVringEnable);
  ASSERT_TRUE(make());
  start();
  ASSERT_TRUE(backend.await(VhostRequest::kSetVringEnable, 2));
  EXPECT_EQ(backend.count(VhostRequest::kGetInflightFd, 2), 0u);
  EXPECT_EQ(backend.count(VhostRequest::kSetInflightFd, 2), 1u);
}

TEST_F(VhostUserBlkTest, NewBackEndWritesThroughBeforeItTakesRequests) {
  ScriptedBackend backend(dir_.path("socket"));
  ASSERT_TRUE(make());
  start();
  ASSERT_TRUE(backend.await(VhostRequest::kSetVringEnable, 1));
  write_wce(0);
  ASSERT_TRUE(backend.await(VhostRequest::kSetConfig, 1));
  backend.hang_up();
  ASSERT_TRUE(backend.await(VhostRequest::kSetVringEnable, 2));
  ASSERT_TRUE(backend.await(VhostRequest::kSetConfig, 2));
  const auto asked = backend.asked();
  const auto first = [&asked](VhostRequest request) {
    return std::ranges::find_if(asked, [request](const ScriptedBackend::Asked& one) {
      return one.connection == 2 && one.request == request;
    });
  };
  EXPECT_LT(first(VhostRequest::kSetConfig), first(VhostRequest::kSetVringEnable));
  EXPECT_EQ(first(VhostRequest::kSetConfig)->payload.back(), std::byte{0});
}

TEST_F(VhostUserBlkTest, ResetBringsTheWriteCacheBack) {
  ScriptedBackend backend(dir_.path("socket"));
  ASSERT_TRUE(make());
  start();
  write_wce(0);
  ASSERT_TRUE(backend.await(VhostRequest::kSetConfig, 1));
  EXPECT_EQ(read_wce(), 0);
  stop();
  EXPECT_EQ(read_wce(), 1);
  start();
  ASSERT_TRUE(backend.await(VhostRequest::kSetVringEnable, 1, 2));
  EXPECT_EQ(backend.count(VhostRequest::kSetConfig, 1), 2u);
}

}  // namespace
}  // namespace skiff::devices
