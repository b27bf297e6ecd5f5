// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/message.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/vhost_user/protocol.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::ErrorKind;
using loop::UniqueFd;

class VhostMessageTest : public ::testing::Test {
 protected:
  VhostMessageTest() {
    std::array<int, 2> ends = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    ours_.reset(ends[0]);
    theirs_.reset(ends[1]);
  }

  static VhostMessage make(VhostRequest request) {
    VhostMessage message;
    message.request = static_cast<uint32_t>(request);
    return message;
  }
  void send(const VhostMessage& message, std::span<const int> fds = {}) {
    auto sent = VhostWriter(message, fds).write(theirs_.get());
    ASSERT_TRUE(sent && *sent);
  }
  void send_bytes(const void* bytes, size_t size) {
    ASSERT_EQ(::send(theirs_.get(), bytes, size, MSG_NOSIGNAL), static_cast<ssize_t>(size));
  }
  // The message that is there, whole.
  VhostMessage receive() {
    auto message = reader_.read(ours_.get());
    EXPECT_TRUE(message && message->has_value());
    return message && message->has_value() ? *std::move(*message) : VhostMessage{};
  }
  ErrorKind receive_error() {
    const auto message = reader_.read(ours_.get());
    EXPECT_FALSE(message);
    return message ? ErrorKind::kIo : message.error().kind();
  }

  UniqueFd ours_;
  UniqueFd theirs_;
  VhostReader reader_;
};

size_t open_fds() {
  size_t count = 0;
  for (int fd = 0; fd < 256; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

TEST_F(VhostMessageTest, MessageArrivesAsItWasSent) {
  VhostMessage message = make(VhostRequest::kSetVringNum);
  message.needs_reply = true;
  message.append(VhostVringState{3, 128});
  send(message);
  const VhostMessage got = receive();
  EXPECT_EQ(got.kind(), VhostRequest::kSetVringNum);
  EXPECT_TRUE(got.needs_reply);
  EXPECT_FALSE(got.is_reply);
  const auto state = parse_vring_state(got, 4);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->index, 3u);
  EXPECT_EQ(state->value, 128u);
}

TEST_F(VhostMessageTest, MessageMayComeByteByByte) {
  VhostMessage message = make(VhostRequest::kSetFeatures);
  message.append(uint64_t{0x1122334455667788});
  VhostHeader header{.request = message.request, .flags = kVhostVersion, .size_bytes = 8};
  std::vector<std::byte> bytes(sizeof(header));
  std::memcpy(bytes.data(), &header, sizeof(header));
  bytes.insert(bytes.end(), message.payload.begin(), message.payload.end());
  for (size_t i = 0; i + 1 < bytes.size(); ++i) {
    send_bytes(&bytes[i], 1);
    const auto part = reader_.read(ours_.get());
    ASSERT_TRUE(part);
    EXPECT_FALSE(part->has_value()) << i;
  }
  send_bytes(&bytes.back(), 1);
  const auto value = parse_u64(receive());
  ASSERT_TRUE(value);
  EXPECT_EQ(*value, 0x1122334455667788u);
}

TEST_F(VhostMessageTest, TwoMessagesAtOnceAreTwo) {
  VhostMessage message = make(VhostRequest::kGetFeatures);
  send(message);
  send(make(VhostRequest::kGetQueueNum));
  EXPECT_EQ(receive().kind(), VhostRequest::kGetFeatures);
  EXPECT_EQ(receive().kind(), VhostRequest::kGetQueueNum);
  const auto none = reader_.read(ours_.get());
  EXPECT_TRUE(none && !none->has_value());
}

TEST_F(VhostMessageTest, DescriptorsComeAlongAndAreClosedWithTheMessage) {
  const UniqueFd event(::eventfd(7, EFD_CLOEXEC));
  const size_t before = open_fds();
  {
    VhostMessage message = make(VhostRequest::kSetVringKick);
    message.append(uint64_t{1});
    const std::array fds = {event.get()};
    send(message, fds);
    VhostMessage got = receive();
    auto kick = parse_vring_fd(got, 2);
    ASSERT_TRUE(kick);
    EXPECT_EQ(kick->index, 1);
    uint64_t value = 0;
    EXPECT_EQ(::read(kick->fd.get(), &value, sizeof(value)), 8);
    EXPECT_EQ(value, 7u);
  }
  EXPECT_EQ(open_fds(), before);
}

TEST_F(VhostMessageTest, MoreDescriptorsThanAnyMessageHasAreRefusedAndClosed) {
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC));
  const size_t before = open_fds();
  std::vector<int> fds(kVhostFdsMax + 1, event.get());
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * (kVhostFdsMax + 1))> control{};
  const VhostHeader header{.request = 5, .flags = kVhostVersion, .size_bytes = 0};
  iovec part{.iov_base = const_cast<VhostHeader*>(&header), .iov_len = sizeof(header)};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
  std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
  ASSERT_GT(::sendmsg(theirs_.get(), &message, 0), 0);
  EXPECT_EQ(receive_error(), ErrorKind::kCorrupt);
  reader_ = VhostReader();
  EXPECT_EQ(open_fds(), before);
}

TEST_F(VhostMessageTest, HugePayloadIsRefusedBeforeItIsRead) {
  const VhostHeader header{.request = 5, .flags = kVhostVersion, .size_bytes = 0xffff'fff0};
  send_bytes(&header, sizeof(header));
  EXPECT_EQ(receive_error(), ErrorKind::kCorrupt);
}

TEST_F(VhostMessageTest, OtherVersionIsRefused) {
  const VhostHeader header{.request = 1, .flags = 2, .size_bytes = 0};
  send_bytes(&header, sizeof(header));
  EXPECT_EQ(receive_error(), ErrorKind::kCorrupt);
}

TEST_F(VhostMessageTest, PeerThatClosesBetweenMessagesIsDone) {
  theirs_.reset();
  EXPECT_EQ(receive_error(), ErrorKind::kCancelled);
}

TEST_F(VhostMessageTest, PeerThatDiesInTheMiddleOfAMessageIsAnError) {
  const VhostHeader header{.request = 2, .flags = kVhostVersion, .size_bytes = 8};
  send_bytes(&header, sizeof(header));
  theirs_.reset();
  EXPECT_EQ(receive_error(), ErrorKind::kCorrupt);
}

TEST_F(VhostMessageTest, WriterGoesOnWhereAFullSocketStoppedIt) {
  VhostMessage message = make(VhostRequest::kGetConfig);
  message.payload.resize(1000);
  int sent = 0;
  std::optional<VhostWriter> writer;
  for (;; ++sent) {
    writer.emplace(message, std::span<const int>{});
    const auto written = writer->write(theirs_.get());
    ASSERT_TRUE(written);
    if (!*written) break;
  }
  int received = 0;
  while (true) {
    auto got = reader_.read(ours_.get());
    ASSERT_TRUE(got);
    if (!got->has_value()) break;
    EXPECT_EQ((**got).payload.size(), 1000u);
    ++received;
  }
  EXPECT_EQ(received, sent);
  const auto rest = writer->write(theirs_.get());
  ASSERT_TRUE(rest && *rest);
  EXPECT_EQ(receive().payload.size(), 1000u);
}

TEST_F(VhostMessageTest, WriterSaysThatThePeerIsGone) {
  ours_.reset();
  const auto sent = VhostWriter(make(VhostRequest::kGetFeatures), {}).write(theirs_.get());
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().kind(), ErrorKind::kCancelled);
}

TEST(VhostParse, WrongSizesAreRefused) {
  VhostMessage message;
  message.payload.resize(7);
  EXPECT_FALSE(parse_u64(message));
  EXPECT_FALSE(parse_empty(message));
  EXPECT_FALSE(parse_vring_state(message, 1));
  EXPECT_FALSE(parse_vring_address(message, 1));
  EXPECT_FALSE(parse_vring_fd(message, 1));
  EXPECT_FALSE(parse_memory_table(message));
  EXPECT_FALSE(parse_memory_region(message, RegionFd::kOptional));
  EXPECT_FALSE(parse_config(message));
  EXPECT_FALSE(parse_inflight(message, 0));
  EXPECT_FALSE(parse_lone_fd(message));
  message.payload.resize(9);
  EXPECT_FALSE(parse_u64(message));
}

TEST(VhostParse, QueueThatIsNotThereIsRefused) {
  VhostMessage message;
  message.append(VhostVringState{4, 0});
  EXPECT_FALSE(parse_vring_state(message, 4));
  EXPECT_TRUE(parse_vring_state(message, 5));
  VhostMessage address;
  address.append(VhostVringAddress{.index = 4});
  EXPECT_FALSE(parse_vring_address(address, 4));
}

TEST(VhostParse, VringDescriptorMustBeThereExactlyWhenTheFlagSaysSo) {
  const auto parse = [](uint64_t value, size_t fds) {
    VhostMessage message;
    message.append(value);
    for (size_t i = 0; i < fds; ++i) message.fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
    return parse_vring_fd(message, 4).has_value();
  };
  EXPECT_TRUE(parse(1, 1));
  EXPECT_TRUE(parse(1 | kVringNoFd, 0));
  EXPECT_FALSE(parse(1, 0));
  EXPECT_FALSE(parse(1, 2));
  EXPECT_FALSE(parse(1 | kVringNoFd, 1));
  EXPECT_FALSE(parse(4, 1));
  EXPECT_FALSE(parse(1 | 0x200, 1));
}

TEST(VhostParse, MemoryTableNeedsAsManyDescriptorsAsRegions) {
  const auto parse = [](uint32_t count, size_t regions, size_t fds) {
    VhostMessage message;
    message.append(VhostMemoryTableHeader{.count = count});
    for (size_t i = 0; i < regions; ++i) message.append(VhostMemoryRegion{.size_bytes = 4096});
    for (size_t i = 0; i < fds; ++i) message.fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
    return parse_memory_table(message).has_value();
  };
  EXPECT_TRUE(parse(2, 2, 2));
  EXPECT_TRUE(parse(0, 0, 0));
  EXPECT_FALSE(parse(2, 2, 1));
  EXPECT_FALSE(parse(2, 1, 2));
  EXPECT_FALSE(parse(1, 2, 1));
  EXPECT_FALSE(parse(9, 9, 9));
  EXPECT_FALSE(parse(0xffff'ffff, 2, 2));
}

TEST(VhostParse, ConfigAccessStaysWithinTheConfiguration) {
  const auto parse = [](uint32_t offset, uint32_t size, size_t bytes) {
    VhostMessage message;
    message.append(VhostConfigHeader{.offset = offset, .size_bytes = size});
    message.payload.resize(message.payload.size() + bytes);
    return parse_config(message).has_value();
  };
  EXPECT_TRUE(parse(0, 60, 60));
  EXPECT_TRUE(parse(kVhostConfigMaxBytes, 0, 0));
  EXPECT_FALSE(parse(0, 60, 59));
  EXPECT_FALSE(parse(0, 59, 60));
  EXPECT_FALSE(parse(kVhostConfigMaxBytes - 1, 2, 2));
  EXPECT_FALSE(parse(0xffff'ffff, 2, 2));
}

TEST(VhostParse, InflightDescriptionMayLackItsPadding) {
  VhostMessage message;
  message.append(VhostInflight{.map_bytes = 1, .queue_count = 2, .queue_size = 3});
  ASSERT_TRUE(parse_inflight(message, 0));
  message.payload.resize(20);
  const auto inflight = parse_inflight(message, 0);
  ASSERT_TRUE(inflight);
  EXPECT_EQ(inflight->queue_size, 3);
  EXPECT_FALSE(parse_inflight(message, 1));
}

}  // namespace
}  // namespace skiff::devices
