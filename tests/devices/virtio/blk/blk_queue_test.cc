// SPDX-License-Identifier: GPL-2.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "block/block_channel.h"
#include "block/testing/fake_channel.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virt_ring.h"
#include "tests/devices/virtio/blk/blk_fixture.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;

class BlkQueueTest : public BlkFixture {
 protected:
  void SetUp() override { make_and_start({.sectors = 64}); }
  block::FakeChannel& channel() { return image_->channel(); }
};

TEST_F(BlkQueueTest, RequestsFinishedInReverseOrderRaiseOneInterrupt) {
  const Offered first = offer_read(0, 512);
  const Offered second = offer_read(1, 512);
  kick();
  ASSERT_EQ(image_->submit_calls(), 1u);  // Two requests, one batch.
  ASSERT_EQ(channel().pending().size(), 2u);
  EXPECT_EQ(transport_.interrupts(), 0u);
  channel().complete(1);
  channel().complete(0);
  loop_.run_until_idle();

  EXPECT_THAT(driver_->used_heads(), ElementsAre(second.head, first.head));
  EXPECT_EQ(status(first), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(second), VIRTIO_BLK_S_OK);
  EXPECT_EQ(transport_.interrupts(), 1u);
}

TEST_F(BlkQueueTest, ChainThatLoopsBreaksTheQueueAndNotTheProcess) {
  driver_->offer_raw({VirtDescriptor{.length_bytes = 16, .flags = VirtDescriptor::kNext}});
  kick();
  EXPECT_TRUE(transport_.reset_requested());
  EXPECT_EQ(image_->submit_calls(), 0u);
}

TEST_F(BlkQueueTest, ChainWithoutAPlaceForTheStatusNeedsAReset) {
  const Offered good = offer_read(0, 512);
  const DriverBuffer only[] = {header(VIRTIO_BLK_T_FLUSH, 0)};
  driver_->offer(only);
  kick();
  EXPECT_TRUE(transport_.reset_requested());
  ASSERT_EQ(channel().pending().size(), 1u);  // What came before it is served.
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(status(good), VIRTIO_BLK_S_OK);
}

TEST_F(BlkQueueTest, AfterANeededResetNothingIsTakenUntilTheNextStart) {
  const DriverBuffer only[] = {header(VIRTIO_BLK_T_FLUSH, 0)};
  driver_->offer(only);
  kick();
  offer_read(0, 512);
  kick();
  EXPECT_EQ(image_->requests(), 0u);
  EXPECT_EQ(transport_.reset_requests(), 1u);
}

TEST_F(BlkQueueTest, ReadTellsTheBytesWrittenAndAFailedOneOnlyTheStatus) {
  offer_read(3, 1024);
  offer_read(5, 512);
  kick();
  channel().complete(0);
  channel().fail(0, -EIO);
  loop_.run_until_idle();
  const auto used = driver_->collect_all();
  ASSERT_EQ(used.size(), 2u);
  EXPECT_EQ(used[0].written_bytes, 1025u);
  EXPECT_EQ(used[1].written_bytes, 1u);
}

TEST_F(BlkQueueTest, ErrorsOfTheImageBecomeStatusBytes) {
  const Offered lost = offer_read(0, 512);
  const Offered impossible = offer_read(0, 512);
  kick();
  channel().fail(0, -EIO);
  channel().fail(0, -EOPNOTSUPP);
  loop_.run_until_idle();
  EXPECT_EQ(status(lost), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(status(impossible), VIRTIO_BLK_S_UNSUPP);
  EXPECT_EQ(device_->queue_stats(0).errors, 2u);
}

TEST_F(BlkQueueTest, StopWaitsForWhatIsInFlightAndTakesNothingNew) {
  const Offered before = offer_read(0, 512);
  kick();
  bool stopped = false;
  device_->stop([&] { stopped = true; });
  loop_.run_until_idle();
  EXPECT_FALSE(stopped);
  const Offered after = offer_read(1, 512);
  kick();
  EXPECT_EQ(image_->requests(), 1u);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_TRUE(stopped);
  EXPECT_FALSE(image_->has_channel());
  EXPECT_EQ(status(before), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(after), kNoStatus);
}

TEST_F(BlkQueueTest, StopWhenNotStartedCallsBackAtOnce) {
  bool stopped = false;
  device_->stop([] {});
  loop_.run_until_idle();
  device_->stop([&] { stopped = true; });
  EXPECT_TRUE(stopped);
}

TEST_F(BlkQueueTest, RestartAfterAResetServesAFreshRing) {
  for (int round = 0; round < 3; ++round) {
    device_->stop([] {});
    loop_.run_until_idle();
    driver_ = std::make_unique<GuestDriver>(memory_,
                                            GuestDriver::Options{.queue_size = 8, .features = 0});
    start();
    const Offered read = offer_read(0, 512);
    kick();
    channel().complete(0);
    loop_.run_until_idle();
    EXPECT_EQ(status(read), VIRTIO_BLK_S_OK);
  }
}

TEST_F(BlkQueueTest, WithoutFlushAWriteIsDurableBeforeItIsAnswered) {
  device_->stop([] {});
  loop_.run_until_idle();
  driver_ = std::make_unique<GuestDriver>(memory_, GuestDriver::Options{.queue_size = 8});
  start(device_->features() & ~(uint64_t{1} << VIRTIO_BLK_F_FLUSH));
  const std::vector<std::byte> content(512);
  offer_write(0, content);
  offer_segment(VIRTIO_BLK_T_WRITE_ZEROES, {.sector = 0, .sector_count = 1});
  kick();
  ASSERT_EQ(channel().pending().size(), 2u);
  EXPECT_TRUE(channel().pending()[0]->fua);
  EXPECT_TRUE(channel().pending()[1]->fua);
}

TEST_F(BlkQueueTest, WriteCacheTurnedOffAndOnMakesWritesDurableMeanwhile) {
  const std::vector<std::byte> content(512);
  for (const uint8_t cache : {uint8_t{0}, uint8_t{1}}) {
    device_->write_config(offsetof(virtio_blk_config, wce), {&cache, 1});
    offer_write(0, content);
    kick();
    ASSERT_EQ(channel().pending().size(), 1u);
    EXPECT_EQ(channel().pending()[0]->fua, cache == 0);
    channel().complete(0);
    loop_.run_until_idle();
  }
}

TEST_F(BlkQueueTest, KickThatComesWhileRequestsAreInFlightIsServed) {
  offer_read(0, 512);
  kick();
  offer_read(1, 512);
  kick();
  EXPECT_EQ(image_->submit_calls(), 2u);
  EXPECT_EQ(channel().pending().size(), 2u);
}

TEST_F(BlkQueueTest, ImageThatGivesNoChannelNeedsAReset) {
  device_->stop([] {});
  loop_.run_until_idle();
  image_->refuse_channels();
  driver_ = std::make_unique<GuestDriver>(memory_, GuestDriver::Options{.queue_size = 8});
  start();
  offer_read(0, 512);
  kick();
  EXPECT_TRUE(transport_.reset_requested());
}

TEST_F(BlkQueueTest, LatencyIsTheTimeWithTheImage) {
  offer_read(0, 512);
  kick();
  loop_.advance_ns(1000);
  channel().complete(0);
  loop_.run_until_idle();
  const BlkQueueStats stats = device_->queue_stats(0);
  EXPECT_EQ(stats.latency[static_cast<size_t>(BlkOpKind::kRead)].count(), 1u);
  EXPECT_EQ(stats.latency[static_cast<size_t>(BlkOpKind::kRead)].max_ns(), 1000);
  EXPECT_EQ(stats.latency[static_cast<size_t>(BlkOpKind::kWrite)].count(), 0u);
}

TEST_F(BlkQueueTest, RequestsAreCountedByKind) {
  offer_read(0, 1024);
  const std::vector<std::byte> content(512);
  offer_write(1, content);
  kick();
  while (channel().in_flight() > 0) channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(driver_->collect_all().size(), 2u);
  offer_plain(VIRTIO_BLK_T_FLUSH);
  offer_plain(99);
  kick();
  channel().complete(0);
  loop_.run_until_idle();
  const BlkQueueStats metrics = device_->queue_stats(0);
  EXPECT_EQ(metrics.reads, 1u);
  EXPECT_EQ(metrics.read_bytes, 1024u);
  EXPECT_EQ(metrics.writes, 1u);
  EXPECT_EQ(metrics.written_bytes, 512u);
  EXPECT_EQ(metrics.flushes, 1u);
  EXPECT_EQ(metrics.others, 1u);
  EXPECT_EQ(metrics.errors, 1u);
  EXPECT_EQ(metrics.batches, 2u);
}

}  // namespace
}  // namespace skiff::devices
