// SPDX-License-Identifier: GPL-2.0-or-later
// A virtio-blk queue as a party of its image's drains, and what they are for: another size.
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "block/drain.h"
#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "devices/testing/guest_driver.h"
#include "tests/devices/virtio/blk/blk_fixture.h"

namespace skiff::devices {
namespace {

class BlkDrainTest : public BlkFixture {
 protected:
  void SetUp() override {
    errors_.write = block::ErrorPolicy::kStop;
    ASSERT_NO_FATAL_FAILURE(make({.sectors = 64}));
    point_.join(device_->drain_party(0), loop_, "disk0");
    start();
  }
  void TearDown() override {
    point_.leave(device_->drain_party(0), [] {});
    BlkFixture::TearDown();
  }
  block::DrainPoint::DrainId begin() {
    const auto drain = point_.begin([this] { drained_ = true; });
    loop_.run_until_idle();
    return drain;
  }
  void end(block::DrainPoint::DrainId drain) {
    point_.end(drain);
    loop_.run_until_idle();
  }
  block::FakeChannel& channel() { return image_->channel(); }

  block::DrainPoint point_{loop_, "disk0"};
  bool drained_ = false;
};

TEST_F(BlkDrainTest, WaitsForWhatIsInFlightAndTakesNothingNew) {
  const Offered before = offer_read(0, 512);
  kick();
  const auto drain = begin();
  EXPECT_FALSE(drained_);
  const Offered meanwhile = offer_read(1, 512);
  kick();
  EXPECT_EQ(image_->requests(), 1u);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_TRUE(drained_);
  EXPECT_EQ(status(before), VIRTIO_BLK_S_OK);

  end(drain);  // Without another kick.
  ASSERT_EQ(channel().pending().size(), 1u);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(status(meanwhile), VIRTIO_BLK_S_OK);
}

TEST_F(BlkDrainTest, IdleQueueIsDrainedAtOnceAndServesAfterwards) {
  const auto drain = begin();
  EXPECT_TRUE(drained_);
  end(drain);
  offer_read(0, 512);
  kick();
  ASSERT_EQ(channel().pending().size(), 1u);
  channel().complete(0);
}

TEST_F(BlkDrainTest, ParkedRequestIsNotWaitedForAndIsTriedAgainAfterwards) {
  const std::vector<std::byte> content(512);
  const Offered write = offer_write(0, content);
  kick();
  channel().fail(0, -ENOSPC);
  const auto drain = begin();
  EXPECT_TRUE(drained_);
  device_->retry_failed();
  loop_.run_until_idle();
  EXPECT_TRUE(channel().pending().empty());
  end(drain);
  ASSERT_EQ(channel().pending().size(), 1u);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(status(write), VIRTIO_BLK_S_OK);
}

TEST_F(BlkDrainTest, ResetOfTheDeviceDuringADrainIsNoTrouble) {
  offer_read(0, 512);
  kick();
  const auto drain = begin();
  bool stopped = false;
  device_->stop([&] { stopped = true; });
  loop_.run_until_idle();
  EXPECT_FALSE(stopped);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_TRUE(stopped);
  EXPECT_TRUE(drained_);
  driver_ = std::make_unique<GuestDriver>(memory_, GuestDriver::Options{.queue_size = 8});
  start();
  offer_read(0, 512);
  kick();
  EXPECT_EQ(image_->requests(), 1u);  // Still quiet.
  end(drain);
  EXPECT_EQ(image_->requests(), 2u);
  channel().complete(0);
}

TEST_F(BlkDrainTest, AnotherSizeReachesTheDriverAndItsRequests) {
  const auto drain = begin();
  image_->bytes().resize(128 * 512);
  device_->capacity_changed();
  end(drain);
  EXPECT_EQ(transport_.config_interrupts(), 1u);
  uint64_t sectors = 0;
  device_->read_config(0, {reinterpret_cast<uint8_t*>(&sectors), sizeof(sectors)});
  EXPECT_EQ(sectors, 128u);
  const Offered behind = offer_read(100, 512);
  kick();
  ASSERT_EQ(channel().pending().size(), 1u);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(status(behind), VIRTIO_BLK_S_OK);
}

}  // namespace
}  // namespace skiff::devices
