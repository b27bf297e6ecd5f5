// SPDX-License-Identifier: GPL-2.0-or-later
// A back end before front ends that break the protocol: they are sent away, or told no, and nothing
// outside what they shared is touched.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "devices/testing/guest_driver.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/virtio/inflight_log.h"
#include "devices/virtio/virt_ring.h"
#include "loop/unique_fd.h"
#include "tests/devices/vhost_user/backend_fixture.h"

namespace skiff::devices {
namespace {

using loop::UniqueFd;

class BadFrontendTest : public BackendFixture {
 protected:
  // The back end sends the peer away, and the next one is served as ever.
  void expect_sent_away() {
    EXPECT_FALSE(is_connected());
    EXPECT_EQ(table_.region_count(), 0u);
    connect();
    driver_.emplace(memory_.memory(), GuestDriver::Options{.queue_size = kQueueSize});
    start_all();
    const GuestAddress at = offer_read();
    kick();
    EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
  }
  void send_raw(const void* bytes, size_t size) {
    ASSERT_EQ(::send(peer_.get(), bytes, size, MSG_NOSIGNAL), static_cast<ssize_t>(size));
    loop_.run_until_idle();
  }
};

TEST_F(BadFrontendTest, OversizedMessage) {
  const VhostHeader header{.request = 2, .flags = kVhostVersion, .size_bytes = 1u << 30};
  send_raw(&header, sizeof(header));
  expect_sent_away();
}

TEST_F(BadFrontendTest, WrongVersion) {
  const VhostHeader header{.request = 1, .flags = 3, .size_bytes = 0};
  send_raw(&header, sizeof(header));
  expect_sent_away();
}

TEST_F(BadFrontendTest, DeathInTheMiddleOfAMessage) {
  const VhostHeader header{.request = 2, .flags = kVhostVersion, .size_bytes = 8};
  send_raw(&header, 5);
  EXPECT_TRUE(is_connected());
  peer_.reset();
  expect_sent_away();
}

TEST_F(BadFrontendTest, ReplyInsteadOfARequest) {
  VhostMessage message = make(VhostRequest::kGetFeatures);
  message.is_reply = true;
  send(message);
  expect_sent_away();
}

TEST_F(BadFrontendTest, UnknownRequestIsAnsweredNoWhereAnAnswerIsWanted) {
  negotiate();
  constexpr auto kUnknown = static_cast<VhostRequest>(4711);
  EXPECT_EQ(ack(make(kUnknown)), 1u);
  EXPECT_TRUE(is_connected());
  send(make(kUnknown));
  expect_sent_away();
}

TEST_F(BadFrontendTest, RequestWithoutItsProtocolFeature) {
  send(make(VhostRequest::kGetConfig, VhostConfigHeader{}));
  expect_sent_away();
}

TEST_F(BadFrontendTest, FeaturesThatWereNotOffered) {
  send(make(VhostRequest::kSetFeatures, ~uint64_t{0}));
  expect_sent_away();
}

TEST_F(BadFrontendTest, ProtocolFeaturesThatWereNotOffered) {
  send(make(VhostRequest::kSetProtocolFeatures, ~uint64_t{0}));
  expect_sent_away();
}

TEST_F(BadFrontendTest, MissingDescriptors) {
  negotiate();
  send(make(VhostRequest::kSetMemTable, VhostMemoryTableHeader{.count = 1},
            VhostMemoryRegion{.size_bytes = 4096}));
  expect_sent_away();
}

TEST_F(BadFrontendTest, TooManyDescriptors) {
  negotiate();
  send(make(VhostRequest::kSetVringKick, uint64_t{0}), std::array{kick_.fd(), call_.fd()});
  expect_sent_away();
}

TEST_F(BadFrontendTest, DescriptorsWhereNoneBelong) {
  negotiate();
  send(make(VhostRequest::kGetFeatures), kick_.fd());
  expect_sent_away();
}

TEST_F(BadFrontendTest, MemoryRegionsThatOverflow) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  const VhostMemoryRegion regions[] = {
      {.guest_address = kMax & ~uint64_t{4095}, .size_bytes = 8192},
      {.size_bytes = 8192, .user_address = kMax & ~uint64_t{4095}},
      {.size_bytes = kMemoryBytes + 4096},
      {.size_bytes = 4096, .file_offset = kMax & ~uint64_t{4095}},
      {.size_bytes = 0},
  };
  for (const VhostMemoryRegion& region : regions) {
    negotiate();
    send(make(VhostRequest::kSetMemTable, VhostMemoryTableHeader{.count = 1}, region),
         memory_.regions().front().fd);
    expect_sent_away();
    peer_.reset();
    settle();
    connect();
  }
}

TEST_F(BadFrontendTest, MemoryThatIsAPipe) {
  std::array<int, 2> pipe_ends = {-1, -1};
  ASSERT_EQ(::pipe2(pipe_ends.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(pipe_ends[0]);
  const UniqueFd write_end(pipe_ends[1]);
  negotiate();
  send(make(VhostRequest::kSetMemTable, VhostMemoryTableHeader{.count = 1},
            VhostMemoryRegion{.size_bytes = 4096}),
       read_end.get());
  expect_sent_away();
}

TEST_F(BadFrontendTest, RingsOutsideMemoryOrMisaligned) {
  const auto with = [this](auto change) {
    VhostVringAddress address = address_of(0);
    change(address);
    return address;
  };
  const VhostVringAddress bad[] = {
      with([](auto& a) { a.descriptors = 0; }),
      with([](auto& a) { a.descriptors += 8; }),
      with([](auto& a) { a.used = kUserBase + kMemoryBytes - 16; }),
      with([](auto& a) { a.available = kUserBase + kMemoryBytes; }),
      with([](auto& a) { a.available = ~uint64_t{0}; }),
  };
  for (const VhostVringAddress& address : bad) {
    negotiate();
    share_memory();
    set_up_ring();
    ASSERT_EQ(ack(make(VhostRequest::kSetVringAddr, address)), 0u);  // Not looked at yet.
    send(make(VhostRequest::kSetVringEnable, VhostVringState{0, 1}));
    expect_sent_away();
    peer_.reset();
    settle();
    connect();
  }
}

TEST_F(BadFrontendTest, MemoryThatGoesAwayUnderARing) {
  start_all();
  send(make(VhostRequest::kSetMemTable, VhostMemoryTableHeader{}));
  expect_sent_away();
}

TEST_F(BadFrontendTest, QueuesAndSizesThatAreNotThere) {
  const VhostMessage bad[] = {
      make(VhostRequest::kSetVringNum, VhostVringState{kQueues, kQueueSize}),
      make(VhostRequest::kSetVringNum, VhostVringState{0, 3}),
      make(VhostRequest::kSetVringNum, VhostVringState{0, 0}),
      make(VhostRequest::kSetVringNum, VhostVringState{0, kQueueSize * 2}),
      make(VhostRequest::kSetVringBase, VhostVringState{0, 0x10000}),
      make(VhostRequest::kSetVringEnable, VhostVringState{0, 2}),
      make(VhostRequest::kGetVringBase, VhostVringState{0xffff'ffff, 0}),
      make(VhostRequest::kSetVringAddr, VhostVringAddress{.index = kQueues}),
  };
  for (const VhostMessage& message : bad) {
    negotiate();
    send(message);
    expect_sent_away();
    peer_.reset();
    settle();
    connect();
  }
}

TEST_F(BadFrontendTest, KickThatIsNoEventfd) {
  negotiate();
  send(make(VhostRequest::kSetVringKick, uint64_t{0}), memory_.regions().front().fd);
  expect_sent_away();
}

TEST_F(BadFrontendTest, CallThatIsNoEventfd) {
  negotiate();
  send(make(VhostRequest::kSetVringCall, uint64_t{0}), peer_.get());
  expect_sent_away();
}

TEST_F(BadFrontendTest, CallWhoseCounterIsFullHoldsNobodyUp) {
  const UniqueFd full(::eventfd(0, EFD_CLOEXEC));  // Blocking.
  const uint64_t most = std::numeric_limits<uint64_t>::max() - 1;
  ASSERT_EQ(::write(full.get(), &most, sizeof(most)), 8);
  start_all();
  ASSERT_EQ(ack(make(VhostRequest::kSetVringCall, uint64_t{0}), full.get()), 0u);
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
}

TEST_F(BadFrontendTest, PolledRingIsRefused) {
  negotiate();
  EXPECT_EQ(ack(make(VhostRequest::kSetVringKick, uint64_t{0} | kVringNoFd)), 1u);
  EXPECT_TRUE(is_connected());
}

TEST_F(BadFrontendTest, TruncatedInflightFile) {
  const UniqueFd file(::memfd_create("short", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), 100), 0);
  const VhostInflight shape{.map_bytes = kQueues * InflightLog::bytes_for(kQueueSize),
                            .queue_count = kQueues,
                            .queue_size = kQueueSize};
  negotiate();
  send(make(VhostRequest::kSetInflightFd, shape), file.get());
  expect_sent_away();
}

TEST_F(BadFrontendTest, InflightFileCutShortWhileInUse) {
  const uint64_t bytes = kQueues * InflightLog::bytes_for(kQueueSize);
  const UniqueFd file(::memfd_create("log", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  negotiate();
  share_memory();
  ASSERT_EQ(
      ack(make(VhostRequest::kSetInflightFd,
               VhostInflight{.map_bytes = bytes, .queue_count = kQueues, .queue_size = kQueueSize}),
          file.get()),
      0u);
  set_up_ring();
  enable_ring();
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  const GuestAddress at = offer_read();
  kick();
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
}

TEST_F(BadFrontendTest, InflightShapesThatMakeNoSense) {
  const VhostInflight bad[] = {
      {.map_bytes = 64, .queue_count = kQueues, .queue_size = kQueueSize},
      {.map_bytes = 1 << 20, .queue_count = kQueues + 1, .queue_size = kQueueSize},
      {.map_bytes = 1 << 20, .queue_count = kQueues, .queue_size = 0},
      {.map_bytes = ~uint64_t{0}, .queue_count = kQueues, .queue_size = kQueueSize},
      {.map_bytes = 4096, .map_offset = 1, .queue_count = kQueues, .queue_size = kQueueSize},
      {.map_bytes = 4096,
       .map_offset = ~uint64_t{7},
       .queue_count = kQueues,
       .queue_size = kQueueSize},
  };
  for (const VhostInflight& shape : bad) {
    negotiate();
    send(make(VhostRequest::kSetInflightFd, shape), memory_.regions().front().fd);
    expect_sent_away();
    peer_.reset();
    settle();
    connect();
  }
  negotiate();
  send(make(VhostRequest::kGetInflightFd, VhostInflight{.queue_count = 0, .queue_size = 8}));
  expect_sent_away();
}

TEST_F(BadFrontendTest, SharedMemoryCutShortUnderARunningRing) {
  const UniqueFd file(::memfd_create("ram", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), kMemoryBytes), 0);
  negotiate();
  ASSERT_EQ(ack(make(VhostRequest::kSetMemTable, VhostMemoryTableHeader{.count = 1},
                     VhostMemoryRegion{.size_bytes = kMemoryBytes, .user_address = kUserBase}),
                file.get()),
            0u);
  set_up_ring();
  enable_ring();
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  kick();
  EXPECT_TRUE(is_connected());
  peer_.reset();
  expect_sent_away();
}

TEST_F(BadFrontendTest, RingThatBreaksTheRulesIsToldByItsErrorEventfd) {
  const auto error = VhostUserFrontend::create_call_eventfd();
  ASSERT_TRUE(error);
  start_all();
  ASSERT_EQ(ack(make(VhostRequest::kSetVringErr, uint64_t{0}), error->fd()), 0u);
  driver_->offer_head(kQueueSize);
  kick();
  EXPECT_TRUE(error->consume());
  EXPECT_TRUE(is_connected());
}

TEST_F(BadFrontendTest, DeathWithRequestsInFlight) {
  image_.hold();
  start_all();
  const GuestAddress at = offer_read();
  kick();
  peer_.reset();
  loop_.run_until_idle();
  ASSERT_EQ(image_.channel().in_flight(), 1u);
  image_.channel().complete(0);
  EXPECT_FALSE(is_connected());
  EXPECT_EQ(status(at), VIRTIO_BLK_S_OK);
}

TEST_F(BadFrontendTest, PeerThatReadsNoAnswersIsWaitedForWithoutHoldingUpTheLoop) {
  send(make(VhostRequest::kSetProtocolFeatures, uint64_t{kAllProtocolFeatures}));
  VhostMessage request = make(VhostRequest::kGetConfig, VhostConfigHeader{.size_bytes = 200});
  request.payload.resize(request.payload.size() + 200);
  for (int i = 0; i < 5000; ++i) send(request);
  EXPECT_TRUE(is_connected());
  peer_.reset();
  expect_sent_away();
}

}  // namespace
}  // namespace skiff::devices
