// SPDX-License-Identifier: GPL-2.0-or-later
// A back end before front ends that follow the protocol.
#include "devices/vhost_user/backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "block/testing/fake_channel.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/virtio/inflight_log.h"
#include "devices/virtio/virtio_device.h"
#include "loop/unique_fd.h"
#include "tests/devices/vhost_user/backend_fixture.h"

namespace skiff::devices {
namespace {

using VhostBackendTest = BackendFixture;

// Nothing completes before the test says so.
class VhostBackendHeldTest : public BackendFixture {
 protected:
  VhostBackendHeldTest() { image_.hold(); }
};

TEST_F(VhostBackendTest, FeaturesAndQueuesAreTold) {
  send(make(VhostRequest::kGetFeatures));
  const auto features = parse_u64(receive().value());
  ASSERT_TRUE(features);
  EXPECT_EQ(*features & kVhostProtocolFeatures, kVhostProtocolFeatures);
  EXPECT_NE(*features & (uint64_t{1} << VIRTIO_BLK_F_MQ), 0u);
  EXPECT_EQ(*features & kVirtioRingReset, 0u);
  send(make(VhostRequest::kGetProtocolFeatures));
  EXPECT_EQ(*parse_u64(receive().value()), kAllProtocolFeatures);
  send(make(VhostRequest::kGetQueueNum));
  EXPECT_EQ(*parse_u64(receive().value()), kQueues);
}

TEST_F(VhostBackendTest, RequestIsServedAndItsCallSignalled) {
  start_all();
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
  EXPECT_EQ(driver_->used_index(), 1);
  EXPECT_TRUE(call_.consume());
}

TEST_F(VhostBackendTest, KickBeforeEnableIsServedOnceEnabled) {
  negotiate();
  share_memory();
  set_up_ring();
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), 0xee);
  EXPECT_EQ(driver_->used_index(), 0);
  enable_ring();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
}

TEST_F(VhostBackendTest, WithoutProtocolFeaturesRingsAreEnabledFromTheStart) {
  send(make(VhostRequest::kSetFeatures, uint64_t{kVirtioVersion1}));
  send(make(VhostRequest::kSetMemTable, VhostMemoryTableHeader{.count = 1},
            VhostMemoryRegion{.size_bytes = kMemoryBytes, .user_address = kUserBase}),
       memory_.regions().front().fd);
  send(make(VhostRequest::kSetVringNum, VhostVringState{0, kQueueSize}));
  send(make(VhostRequest::kSetVringAddr, address_of(0)));
  send(make(VhostRequest::kSetVringKick, uint64_t{0}), kick_.fd());
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
}

TEST_F(VhostBackendTest, DisabledRingIsNotServed) {
  start_all();
  ASSERT_EQ(ack(make(VhostRequest::kSetVringEnable, VhostVringState{0, 0})), 0u);
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), 0xee);
  enable_ring();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
}

TEST_F(VhostBackendTest, BaseIsWhereTheRingIsAndItGoesOnFromThere) {
  start_all();
  offer_read();
  offer_read();
  kick();
  send(make(VhostRequest::kGetVringBase, VhostVringState{0, 0}));
  const auto state = parse_vring_state(receive().value(), kQueues);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->value, 2u);
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), 0xee);  // Stopped.
  set_up_ring(0, state->value);
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
  EXPECT_EQ(driver_->used_index(), 3);
}

TEST_F(VhostBackendHeldTest, TakingTheBaseWaitsForWhatIsInFlight) {
  start_all();
  offer_read();
  kick();
  send(make(VhostRequest::kGetVringBase, VhostVringState{0, 0}));
  EXPECT_FALSE(receive());
  image_.channel().complete(0);
  const auto state = parse_vring_state(receive().value(), kQueues);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->value, 1u);
  EXPECT_EQ(driver_->used_index(), 1);
}

TEST_F(VhostBackendHeldTest, CallMayBeReplacedWhileTheRingRuns) {
  start_all();
  offer_read();
  kick();
  const auto other = VhostUserFrontend::create_call_eventfd();
  ASSERT_TRUE(other);
  ASSERT_EQ(ack(make(VhostRequest::kSetVringCall, uint64_t{0}), other->fd()), 0u);
  EXPECT_TRUE(other->consume());  // What was told to the old one may have gone to nobody.
  image_.channel().complete(0);
  loop_.run_until_idle();
  EXPECT_TRUE(other->consume());
}

TEST_F(VhostBackendTest, MemoryMayBeAddedAndRemovedWhileRingsRun) {
  start_all();
  const VhostSingleRegion more{.region = {.guest_address = 0x10'0000,
                                          .size_bytes = kMemoryBytes,
                                          .user_address = 0x6000'0000}};
  const auto second = FrontendMemory::create(kMemoryBytes);
  ASSERT_TRUE(second);
  EXPECT_EQ(ack(make(VhostRequest::kAddMemReg, more), second->regions().front().fd), 0u);
  EXPECT_EQ(table_.region_count(), 2u);
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
  EXPECT_EQ(ack(make(VhostRequest::kRemMemReg, more)), 0u);
  EXPECT_EQ(table_.region_count(), 1u);
  EXPECT_EQ(ack(make(VhostRequest::kRemMemReg, more)), 1u);
  EXPECT_TRUE(is_connected());
  send(make(VhostRequest::kGetMaxMemSlots));
  EXPECT_EQ(*parse_u64(receive().value()), MemoryTable::kRegionsMax);
}

TEST_F(VhostBackendTest, ConfigurationIsReadAndItsWritablePartWritten) {
  negotiate(kVirtioVersion1 | kVhostProtocolFeatures | (uint64_t{1} << VIRTIO_BLK_F_CONFIG_WCE));
  virtio_blk_config config = {};
  send(make(VhostRequest::kGetConfig, VhostConfigHeader{.size_bytes = sizeof(config)}, config));
  auto reply = receive().value();
  auto access = parse_config(reply);
  ASSERT_TRUE(access);
  ASSERT_EQ(access->bytes.size(), sizeof(config));
  std::memcpy(&config, access->bytes.data(), sizeof(config));
  EXPECT_EQ(config.capacity, 64u);
  EXPECT_EQ(config.num_queues, kQueues);
  EXPECT_EQ(config.wce, 1);
  const VhostConfigHeader wce{.offset = offsetof(virtio_blk_config, wce), .size_bytes = 1};
  EXPECT_EQ(ack(make(VhostRequest::kSetConfig, wce, uint8_t{0})), 0u);
  send(make(VhostRequest::kGetConfig, wce, uint8_t{0}));
  reply = receive().value();
  EXPECT_EQ(parse_config(reply)->bytes[0], std::byte{0});
}

TEST_F(VhostBackendTest, NewSizeIsToldOverTheBackendChannel) {
  negotiate();
  std::array<int, 2> ends = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
  const loop::UniqueFd ours(ends[0]);
  const loop::UniqueFd theirs(ends[1]);
  ASSERT_EQ(ack(make(VhostRequest::kSetBackendReqFd), theirs.get()), 0u);
  device_->capacity_changed();
  loop_.run_until_idle();
  VhostReader reader;
  auto news = reader.read(ours.get());
  ASSERT_TRUE(news && news->has_value());
  EXPECT_EQ((*news)->request, static_cast<uint32_t>(VhostBackendRequest::kConfigChange));
}

TEST_F(VhostBackendHeldTest, RequestsOfADeadBackEndAreCarriedOutByTheNext) {
  negotiate();
  share_memory();
  send(make(VhostRequest::kGetInflightFd,
            VhostInflight{.queue_count = kQueues, .queue_size = kQueueSize}));
  auto reply = receive().value();
  const auto shape = parse_inflight(reply, 1);
  ASSERT_TRUE(shape);
  EXPECT_EQ(shape->map_bytes, kQueues * InflightLog::bytes_for(kQueueSize));
  const int log = reply.fds.front().get();
  // As a back end would leave it that died with two requests of three taken.
  auto mapping = SharedMapping::map(log, 0, shape->map_bytes);
  ASSERT_TRUE(mapping);
  auto left =
      InflightLog::open(mapping->bytes().first(InflightLog::bytes_for(kQueueSize)), kQueueSize);
  ASSERT_TRUE(left);
  left->taken(0);
  left->taken(3);
  offer_read(1);  // Heads 0, 3 and 6.
  offer_read(2);
  offer_read(3);

  ASSERT_EQ(ack(make(VhostRequest::kSetInflightFd, *shape), log), 0u);
  set_up_ring();
  enable_ring();
  ASSERT_EQ(image_.channel().in_flight(), 3u);
  EXPECT_EQ(image_.channel().pending()[0]->offset_bytes, 512u);
  EXPECT_EQ(image_.channel().pending()[2]->offset_bytes, 3 * 512u);
  while (image_.channel().in_flight() > 0) image_.channel().complete(0);
  loop_.run_until_idle();
  EXPECT_THAT(driver_->used_heads(), ::testing::ElementsAre(0, 3, 6));
  EXPECT_TRUE(call_.consume());
}

TEST_F(VhostBackendHeldTest, FrontEndThatGoesIsWaitedForAndTheNextMayConnect) {
  start_all();
  offer_read();
  kick();
  peer_.reset();
  EXPECT_TRUE(is_connected());  // Its request is still being carried out.
  EXPECT_EQ(table_.region_count(), 1u);
  image_.channel().complete(0);
  EXPECT_FALSE(is_connected());
  EXPECT_EQ(table_.region_count(), 0u);
  EXPECT_FALSE(image_.has_channel());
  connect();
  negotiate();
}

TEST_F(VhostBackendTest, ResetDeviceForgetsTheRings) {
  start_all();
  ASSERT_EQ(ack(make(VhostRequest::kResetDevice)), 0u);
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), 0xee);
  EXPECT_FALSE(image_.has_channel());
  ASSERT_EQ(ack(make(VhostRequest::kSetFeatures, kVirtioVersion1 | kVhostProtocolFeatures)), 0u);
  set_up_ring();
  enable_ring();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
}

TEST_F(VhostBackendTest, SecondFrontEndIsNotServedBesideTheFirst) {
  std::array<int, 2> ends = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
  const loop::UniqueFd other(ends[0]);
  EXPECT_FALSE(backend_->serve(loop::UniqueFd(ends[1])));
  EXPECT_TRUE(is_connected());
}

}  // namespace
}  // namespace skiff::devices
