// SPDX-License-Identifier: GPL-2.0-or-later
// Queues that change their home while they work.
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "block/drain.h"
#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "tests/devices/virtio/blk/blk_queues_fixture.h"

namespace skiff::devices {
namespace {

class BlkMoveTest : public BlkQueuesFixture {
 protected:
  void SetUp() override {
    errors_.read = block::ErrorPolicy::kStop;
    make_and_start({io_thread(0)});
  }
  void move(const QueueHome& home) {
    device_->move_queue(0, home, [this] { ++moved_; });
    turn();
  }
  Offered offer_and_kick() {
    const Offered offered = offer_read(0);
    kick_if_wanted(0);
    turn();
    return offered;
  }

  int moved_ = 0;
};

TEST_F(BlkMoveTest, IdleQueueWorksOnAtItsNewHome) {
  complete_all();
  const Offered before = offer_and_kick();
  complete_all();
  move(io_thread(1));
  EXPECT_EQ(moved_, 1);
  const Offered after = offer_and_kick();
  EXPECT_EQ(pending_on(0), 0u);
  EXPECT_EQ(pending_on(1), 1u);
  complete_all();
  EXPECT_EQ(status(before), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(after), VIRTIO_BLK_S_OK);
  EXPECT_EQ(drivers_[0]->used_index(), 2u);  // The ring goes on.
  EXPECT_EQ(device_->queue_stats(0).moves, 1u);
  EXPECT_EQ(image_.channels().size(), 1u);
}

TEST_F(BlkMoveTest, WhatIsInFlightCompletesWhereItWasSubmitted) {
  const Offered before = offer_and_kick();
  move(io_thread(1));
  EXPECT_EQ(moved_, 0);
  EXPECT_EQ(pending_on(0), 1u);
  complete_all();
  EXPECT_EQ(moved_, 1);
  EXPECT_EQ(status(before), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveTest, WorkThatComesMeanwhileIsServedAtTheNewHomeWithoutAnotherKick) {
  offer_and_kick();
  move(io_thread(1));
  const Offered meanwhile = offer_and_kick();
  EXPECT_EQ(image_.requests(), 1u);
  complete_all();
  EXPECT_EQ(pending_on(1), 1u);
  complete_all();
  EXPECT_EQ(status(meanwhile), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveTest, DoorbellFollowsTheMode) {
  move(vcpu(1));
  EXPECT_EQ(transport_.doorbell_path(0), DoorbellPath::kExit);
  offer_and_kick();
  complete_all();
  move(vcpu(2));
  EXPECT_EQ(transport_.doorbell_path(0), DoorbellPath::kExit);
  move(io_thread(2));  // The same loop: nothing moves.
  EXPECT_EQ(transport_.doorbell_path(0), DoorbellPath::kKernel);
  const Offered last = offer_and_kick();
  EXPECT_EQ(pending_on(2), 1u);
  complete_all();
  EXPECT_EQ(status(last), VIRTIO_BLK_S_OK);
  EXPECT_EQ(moved_, 3);
  EXPECT_EQ(device_->queue_stats(0).moves, 2u);
}

TEST_F(BlkMoveTest, KickByTheOldWayIsNotLost) {
  move(vcpu(1));
  // A write of the guest that KVM had taken before its doorbell was detached.
  const Offered early = offer_read(0);
  device_->doorbell(0).notify();
  turn();
  EXPECT_EQ(pending_on(1), 1u);
  complete_all();
  EXPECT_EQ(status(early), VIRTIO_BLK_S_OK);
  move(io_thread(1));
  // And one that had ended KVM_RUN before it was attached.
  const Offered late = offer_read(0);
  device_->kick(0);
  turn();
  complete_all();
  EXPECT_EQ(status(late), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveTest, ParkedRequestGoesWithTheQueueAndIsRetriedThere) {
  const Offered parked = offer_and_kick();
  image_.channel().fail(0, -EIO);
  turn();
  move(io_thread(1));
  EXPECT_EQ(moved_, 1);
  EXPECT_EQ(status(parked), 0xee);
  device_->retry_failed();
  turn();
  EXPECT_EQ(pending_on(1), 1u);
  complete_all();
  EXPECT_EQ(status(parked), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveTest, RequestThatFailsDuringTheMoveIsParkedAndGoesAlong) {
  const Offered failed = offer_and_kick();
  move(io_thread(1));
  image_.channel_on(loops_[0].loop())->fail(0, -EIO);
  turn();
  EXPECT_EQ(moved_, 1);
  device_->retry_failed();
  turn();
  complete_all();
  EXPECT_EQ(status(failed), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveTest, RetryDuringTheMoveWaitsForIt) {
  const Offered parked = offer_and_kick();
  image_.channel().fail(0, -EIO);
  turn();
  const Offered other = offer_and_kick();
  move(io_thread(1));
  device_->retry_failed();
  turn();
  EXPECT_EQ(pending_on(0), 1u);
  complete_all();
  EXPECT_EQ(pending_on(1), 1u);
  complete_all();
  EXPECT_EQ(status(parked), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(other), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveTest, WithoutAChannelAtTheNewHomeTheQueueStays) {
  offer_and_kick();
  image_.refuse_channels();
  move(io_thread(1));
  EXPECT_EQ(moved_, 1);
  EXPECT_EQ(device_->queue_home(0), io_thread(0));
  EXPECT_EQ(device_->queue_stats(0).moves, 0u);
  complete_all();
  const Offered after = offer_and_kick();
  EXPECT_EQ(pending_on(0), 1u);
  complete_all();
  EXPECT_EQ(status(after), VIRTIO_BLK_S_OK);
  EXPECT_FALSE(transport_.reset_requested());
}

TEST_F(BlkMoveTest, QueueThatIsNotStartedMovesAtOnce) {
  device_->stop([] {});
  turn();
  bool moved = false;
  device_->move_queue(0, vcpu(2), [&] { moved = true; });
  EXPECT_TRUE(moved);
  start();
  EXPECT_EQ(transport_.doorbell_path(0), DoorbellPath::kExit);
  const Offered read = offer_and_kick();
  EXPECT_EQ(pending_on(2), 1u);
  complete_all();
  EXPECT_EQ(status(read), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveTest, StopDuringAMoveEndsAtTheNewHome) {
  offer_and_kick();
  move(io_thread(1));
  bool stopped = false;
  device_->stop([&] { stopped = true; });
  turn();
  EXPECT_FALSE(stopped);
  complete_all();
  EXPECT_EQ(moved_, 1);
  EXPECT_TRUE(stopped);
  EXPECT_FALSE(image_.has_channel());
  start();
}

TEST_F(BlkMoveTest, ResetOfTheQueueDuringAMoveEndsAtTheNewHome) {
  offer_and_kick();
  move(io_thread(1));
  bool reset = false;
  device_->reset_queue(0, [&] { reset = true; });
  turn();
  complete_all();
  EXPECT_TRUE(reset);
  device_->start_queue(0, make_driver(0));
  turn();
  offer_and_kick();
  EXPECT_EQ(pending_on(1), 1u);
  complete_all();
}

TEST_F(BlkMoveTest, MovesOfOneQueueFollowOneAnother) {
  offer_and_kick();
  for (const size_t to : {1U, 2U, 0U, 1U, 2U})
    device_->move_queue(0, to == 0 ? vcpu(to) : io_thread(to), [this] { ++moved_; });
  turn();
  EXPECT_EQ(moved_, 0);
  complete_all();
  EXPECT_EQ(moved_, 5);
  const Offered last = offer_and_kick();
  EXPECT_EQ(pending_on(2), 1u);
  complete_all();
  EXPECT_EQ(status(last), VIRTIO_BLK_S_OK);
}

class BlkMoveDrainTest : public BlkMoveTest {
 protected:
  void SetUp() override {
    BlkMoveTest::SetUp();
    point_.join(device_->drain_party(0), loops_[2].loop(), "queue 0");
  }
  void TearDown() override {
    point_.leave(device_->drain_party(0), [] {});
    turn();
    BlkMoveTest::TearDown();
  }
  block::DrainPoint point_{loops_[2].loop(), "disk0"};
  bool drained_ = false;
};

TEST_F(BlkMoveDrainTest, DrainedQueueMovesAndStaysQuiet) {
  const auto drain = point_.begin([this] { drained_ = true; });
  turn();
  EXPECT_TRUE(drained_);
  move(io_thread(1));
  EXPECT_EQ(moved_, 1);
  const Offered meanwhile = offer_and_kick();
  EXPECT_EQ(image_.requests(), 0u);
  point_.end(drain);
  turn();
  EXPECT_EQ(pending_on(1), 1u);
  complete_all();
  EXPECT_EQ(status(meanwhile), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveDrainTest, DrainDuringAMoveIsAnsweredFromTheNewHome) {
  offer_and_kick();
  move(io_thread(1));
  const auto drain = point_.begin([this] { drained_ = true; });
  turn();
  EXPECT_FALSE(drained_);
  complete_all();
  EXPECT_TRUE(drained_);
  EXPECT_EQ(moved_, 1);
  const Offered meanwhile = offer_and_kick();
  EXPECT_EQ(image_.requests(), 1u);
  point_.end(drain);
  turn();
  complete_all();
  EXPECT_EQ(status(meanwhile), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveDrainTest, DrainThatIsGivenUpLetsTheQueueGoOn) {
  offer_and_kick();
  const auto drain = point_.begin([this] { drained_ = true; });
  turn();
  point_.end(drain);
  turn();
  const Offered next = offer_and_kick();
  EXPECT_EQ(pending_on(0), 2u);
  complete_all();
  EXPECT_FALSE(drained_);
  EXPECT_EQ(status(next), VIRTIO_BLK_S_OK);
}

TEST_F(BlkMoveDrainTest, QueueThatStartsDuringADrainStaysQuiet) {
  device_->stop([] {});
  turn();
  const auto drain = point_.begin([this] { drained_ = true; });
  turn();
  EXPECT_TRUE(drained_);
  start();
  const Offered meanwhile = offer_and_kick();
  EXPECT_EQ(image_.requests(), 0u);
  point_.end(drain);
  turn();
  complete_all();
  EXPECT_EQ(status(meanwhile), VIRTIO_BLK_S_OK);
}

}  // namespace
}  // namespace skiff::devices
