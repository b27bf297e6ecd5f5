// SPDX-License-Identifier: GPL-2.0-or-later
// A queue whose home polls, with a driver on another thread that rings only when it is asked to:
// one kick too few, and a request is never answered.
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>

#include "block/open_image.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/io_thread.h"
#include "loop/worker_pool.h"
#include "tests/devices/virtio/blk/blk_fixture.h"

namespace skiff::devices {
namespace {

struct PollCase {
  const char* name;
  uint64_t ring_features;
};

class BlkPollTest : public ::testing::TestWithParam<PollCase> {
 protected:
  void SetUp() override {
    block::ImageOptions options;
    options.path = "null:size=1M";
    image_ = *block::open_image(options, *pool_);
    device_ = *VirtioBlk::create({.queues = {{&thread_->loop(), SubmitMode::kPoll}},
                                  .memory = &memory_.memory(),
                                  .image = image_.get(),
                                  .queue_size = 8});
    device_->attach(transport_);
    const BlkHeader header{.type = VIRTIO_BLK_T_IN};
    chain_[0] = driver_.allocate_with(bytes_of(header));
    chain_[1] = DriverBuffer::writable(driver_.allocate(512), 512);
    chain_[2] = DriverBuffer::writable(driver_.allocate(1), 1);
    device_->start({.features = device_->features() | driver_.features() | kVirtioVersion1,
                    .queues = {driver_.layout()}});
  }
  void TearDown() override {
    std::binary_semaphore stopped(0);
    device_->stop([&] { stopped.release(); });
    stopped.acquire();
  }
  void request() {
    driver_.add(chain_);
    if (driver_.publish()) device_->doorbell(0).notify();
    while (!driver_.collect()) std::this_thread::yield();
  }

  std::unique_ptr<loop::WorkerPool> pool_ = *loop::WorkerPool::create({});
  std::unique_ptr<loop::IoThread> thread_ =
      *loop::IoThread::create({.name = "io0", .loop = {.poll_max_ns = 50'000}});
  FakeGuestMemory memory_{64 * 1024};
  FakeTransport transport_;
  GuestDriver driver_{memory_, {.queue_size = 8, .features = GetParam().ring_features}};
  DriverBuffer chain_[3];
  std::unique_ptr<block::BlockBackend> image_;
  std::unique_ptr<VirtioBlk> device_;
};

TEST_P(BlkPollTest, EveryRequestIsAnsweredWhetherTheHomeLooksOrSleeps) {
  for (int i = 0; i < 3'000; ++i) {
    request();
    // Longer than it looks, every now and then.
    if (i % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  EXPECT_EQ(device_->queue_stats(0).requests, 3'000u);
}

TEST_P(BlkPollTest, ChangeOfTheModeLosesNoRequest) {
  constexpr SubmitMode kModes[] = {SubmitMode::kPoll, SubmitMode::kIoThread};
  for (size_t i = 0; i < 1'000; ++i) {
    if (i % 8 == 0) device_->move_queue(0, {&thread_->loop(), kModes[i / 8 % 2]}, [] {});
    request();
  }
  EXPECT_EQ(device_->queue_stats(0).moves, 0u);
}

constexpr PollCase kPollCases[] = {{"event_idx", kVirtioRingEventIdx}, {"flags", 0}};

INSTANTIATE_TEST_SUITE_P(Rings, BlkPollTest, ::testing::ValuesIn(kPollCases),
                         [](const auto& its) { return std::string(its.param.name); });

}  // namespace
}  // namespace skiff::devices
