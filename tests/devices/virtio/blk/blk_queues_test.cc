// SPDX-License-Identifier: GPL-2.0-or-later
// Several queues of one device, each on its own home, and one queue's reset (virtio 1.2, 2.6.1).
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/thread.h"
#include "tests/devices/virtio/blk/blk_queues_fixture.h"

namespace skiff::devices {
namespace {

class BlkQueuesTest : public BlkQueuesFixture {
 protected:
  bool offers(unsigned bit) const { return (device_->features() >> bit & 1) != 0; }
  virtio_blk_config config() const {
    virtio_blk_config config;
    device_->read_config(0, {reinterpret_cast<uint8_t*>(&config), sizeof(config)});
    return config;
  }
};

TEST_F(BlkQueuesTest, NumberOfQueuesIsInTheConfigurationAndOffered) {
  make_and_start({io_thread(0), io_thread(1), io_thread(0)});
  EXPECT_TRUE(offers(VIRTIO_BLK_F_MQ));
  EXPECT_TRUE(offers(40));  // VIRTIO_F_RING_RESET.
  EXPECT_EQ(config().num_queues, 3u);
}

TEST_F(BlkQueuesTest, SingleQueueDoesNotOfferSeveral) {
  make_and_start({io_thread(0)});
  EXPECT_FALSE(offers(VIRTIO_BLK_F_MQ));
  EXPECT_EQ(config().num_queues, 1u);
}

TEST_F(BlkQueuesTest, NoQueueAndTooManyAreRefused) {
  const auto create = [&](size_t queues) {
    return VirtioBlk::create({.queues = std::vector<QueueHome>(queues, io_thread(0)),
                              .memory = &memory_.memory(),
                              .image = &image_,
                              .queue_size = 4});
  };
  EXPECT_FALSE(create(0));
  EXPECT_FALSE(create(VirtioBlk::kQueuesMax + 1));
}

TEST_F(BlkQueuesTest, EachQueueIsServedOnItsOwnLoop) {
  make_and_start({io_thread(0), io_thread(1)});
  const Offered first = offer_read(0);
  const Offered second = offer_read(1);
  kick(0);
  kick(1);
  loops_[1].run_until_idle();
  EXPECT_EQ(pending_on(0), 0u);
  EXPECT_EQ(pending_on(1), 1u);
  loops_[0].run_until_idle();
  EXPECT_EQ(pending_on(0), 1u);
  complete_all();
  EXPECT_EQ(status(first), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(second), VIRTIO_BLK_S_OK);
  EXPECT_EQ(transport_.interrupts(0), 1u);
  EXPECT_EQ(transport_.interrupts(1), 1u);
  EXPECT_EQ(device_->queue_stats(1).requests, 1u);
}

TEST_F(BlkQueuesTest, QueueThatTheDriverLeavesAloneOpensNoChannel) {
  ASSERT_NO_FATAL_FAILURE(make({io_thread(0), io_thread(1)}));
  device_->start({.features = device_->features() | kVirtioVersion1,
                  .queues = {make_driver(0), QueueLayout{}}});
  turn();
  EXPECT_EQ(image_.channels().size(), 1u);
}

TEST_F(BlkQueuesTest, OneBrokenQueueLeavesTheOthersAtWorkUntilTheReset) {
  make_and_start({io_thread(0), io_thread(0)});
  drivers_[0]->offer_head(kQueueSize + 1);
  kick(0);
  turn();
  EXPECT_TRUE(transport_.reset_requested());
  const Offered other = offer_read(1);
  kick(1);
  turn();
  complete_all();
  EXPECT_EQ(status(other), VIRTIO_BLK_S_OK);
}

TEST_F(BlkQueuesTest, StopWaitsForTheQueuesOfAllLoops) {
  make_and_start({io_thread(0), io_thread(1), io_thread(2)});
  offer_read(2);
  kick(2);
  turn();
  bool stopped = false;
  device_->stop([&] { stopped = true; });
  turn();
  EXPECT_FALSE(stopped);
  complete_all();
  EXPECT_TRUE(stopped);
  start();  // For the end of the test.
}

TEST_F(BlkQueuesTest, DiscardThatIsOffIsNeitherOfferedNorDone) {
  auto device = VirtioBlk::create(
      {.queues = {io_thread(0)}, .memory = &memory_.memory(), .image = &image_, .discard = false});
  ASSERT_TRUE(device);
  device_ = *std::move(device);
  device_->attach(transport_);
  EXPECT_FALSE(offers(VIRTIO_BLK_F_DISCARD));
  EXPECT_TRUE(offers(VIRTIO_BLK_F_WRITE_ZEROES));
  EXPECT_EQ(config().max_discard_sectors, 0u);
  EXPECT_EQ(config().write_zeroes_may_unmap, 0u);
}

class BlkVcpuModeTest : public BlkQueuesTest {};

TEST_F(BlkVcpuModeTest, KickOnTheHomesThreadIsServedInsideTheCall) {
  make_and_start({vcpu(0)});
  EXPECT_EQ(transport_.doorbell_path(0), DoorbellPath::kExit);
  const Offered read = offer_read(0);
  device_->kick(0);
  EXPECT_EQ(pending_on(0), 1u);  // Without a turn.
  complete_all();
  EXPECT_EQ(status(read), VIRTIO_BLK_S_OK);
  const BlkQueueStats stats = device_->queue_stats(0);
  EXPECT_EQ(stats.mode, SubmitMode::kVcpu);
  EXPECT_EQ(stats.completions[static_cast<size_t>(SubmitMode::kVcpu)], 1u);
  EXPECT_EQ(stats.foreign_kicks, 0u);
}

TEST_F(BlkVcpuModeTest, KickOfAnotherThreadIsServedByTheHome) {
  make_and_start({vcpu(0)});
  const Offered read = offer_read(0);
  auto other = loop::Thread::create({.name = "vcpu1"}, [this] { device_->kick(0); });
  ASSERT_TRUE(other);
  other->join();
  EXPECT_EQ(pending_on(0), 0u);
  turn();
  complete_all();
  EXPECT_EQ(status(read), VIRTIO_BLK_S_OK);
  const BlkQueueStats stats = device_->queue_stats(0);
  EXPECT_EQ(stats.foreign_kicks, 1u);
  uint64_t timed = 0;
  for (const uint64_t count : stats.stages[static_cast<size_t>(QueueStage::kDoorbellToPop)])
    timed += count;
  EXPECT_EQ(timed, 1u);
}

TEST_F(BlkVcpuModeTest, StoppedQueueTakesKicksWithoutHarm) {
  make_and_start({vcpu(0)});
  device_->stop([] {});
  turn();
  device_->kick(0);
  start();
  const Offered read = offer_read(0);
  kick(0);
  complete_all();
  EXPECT_EQ(status(read), VIRTIO_BLK_S_OK);
}

class BlkQueueResetTest : public BlkQueuesTest {
 protected:
  void SetUp() override { make_and_start({io_thread(0), io_thread(1)}); }
  void reset(QueueIndex queue) {
    device_->reset_queue(queue, [this] { ++resets_; });
    turn();
  }
  int resets_ = 0;
};

TEST_F(BlkQueueResetTest, WaitsForWhatIsInFlightAndLeavesTheOtherQueueAlone) {
  const Offered before = offer_read(0);
  kick(0);
  turn();
  reset(0);
  EXPECT_EQ(resets_, 0);
  const Offered other = offer_read(1);
  kick(1);
  turn();
  complete_all();
  EXPECT_EQ(resets_, 1);
  EXPECT_EQ(status(before), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(other), VIRTIO_BLK_S_OK);
  EXPECT_EQ(image_.channels().size(), 1u);
}

TEST_F(BlkQueueResetTest, QueueIsUsedAgainWithAnotherRing) {
  offer_read(0);
  kick(0);
  turn();
  complete_all();
  reset(0);
  ASSERT_EQ(resets_, 1);
  const QueueLayout layout = make_driver(0);  // Indices from 0.
  device_->start_queue(0, layout);
  turn();
  const Offered again = offer_read(0);
  kick(0);
  turn();
  complete_all();
  EXPECT_EQ(status(again), VIRTIO_BLK_S_OK);
  EXPECT_EQ(drivers_[0]->used_index(), 1u);
}

TEST_F(BlkQueueResetTest, KicksOfAQueueThatWasResetDoNothing) {
  reset(0);
  kick(0);
  turn();
  EXPECT_FALSE(transport_.reset_requested());
  EXPECT_EQ(device_->queue_stats(0).requests, 0u);
}

TEST_F(BlkQueueResetTest, BrokenQueueWorksAgain) {
  drivers_[0]->offer_head(kQueueSize);
  kick(0);
  turn();
  reset(0);
  EXPECT_EQ(resets_, 1);
  device_->start_queue(0, make_driver(0));
  turn();
  const Offered again = offer_read(0);
  kick(0);
  turn();
  complete_all();
  EXPECT_EQ(status(again), VIRTIO_BLK_S_OK);
}

TEST_F(BlkQueueResetTest, StopOfTheDeviceMeanwhileComesAfterIt) {
  offer_read(0);
  kick(0);
  turn();
  reset(0);
  bool stopped = false;
  device_->stop([&] {
    EXPECT_EQ(resets_, 1);
    stopped = true;
  });
  turn();
  EXPECT_FALSE(stopped);
  complete_all();
  EXPECT_TRUE(stopped);
  start();
}

}  // namespace
}  // namespace skiff::devices
