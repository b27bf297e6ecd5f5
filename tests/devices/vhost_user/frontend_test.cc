// SPDX-License-Identifier: GPL-2.0-or-later
// The front end's library before Skiff's own back end, and before back ends that are no good.
#include "devices/vhost_user/frontend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/testing/guest_driver.h"
#include "devices/vhost_user/connection.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "loop/event_notifier.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "tests/devices/vhost_user/served_disk.h"
#include "tests/temp_dir.h"

namespace skiff::devices {
namespace {

using loop::UniqueFd;
using ::testing::HasSubstr;

constexpr uint16_t kQueueSize = ServedDisk::kQueueSize;
constexpr int64_t kTimeoutNs = 10'000'000'000;

class VhostFrontendTest : public ::testing::Test {
 protected:
  VhostFrontendTest() { loop::set_log_level(loop::LogLevel::kOff); }

  static std::unique_ptr<VhostUserFrontend> connect(const std::string& socket) {
    auto frontend = VhostUserFrontend::connect({.socket = socket, .timeout_ns = kTimeoutNs});
    EXPECT_TRUE(frontend) << frontend.error().message();
    return frontend ? *std::move(frontend) : nullptr;
  }
  VhostUserFrontend::Queue queue() const {
    return {.layout = driver_.layout(), .kick_fd = kick_.fd(), .call_fd = call_.fd()};
  }
  // Until the call eventfd is signalled.
  void await_call() {
    pollfd ready{.fd = call_.fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
    call_.consume();
  }
  GuestAddress offer_flush() {
    const std::array<uint32_t, 4> header = {VIRTIO_BLK_T_FLUSH, 0, 0, 0};
    const GuestAddress status = driver_.allocate(1);
    memory_.memory().store(status, uint8_t{0xee});
    driver_.offer({driver_.allocate_with(std::as_bytes(std::span(header))),
                   DriverBuffer::writable(status, 1)});
    return status;
  }
  void run_flush() {
    const GuestAddress status = offer_flush();
    kick_.notify();
    while (driver_.used_index() == used_) await_call();
    ++used_;
    EXPECT_EQ(memory_.memory().load<uint8_t>(status), VIRTIO_BLK_S_OK);
    driver_.collect_all();
  }

  TempDir dir_;
  FrontendMemory memory_ = *FrontendMemory::create(64 * 1024);
  GuestDriver driver_{memory_.memory(), {.queue_size = kQueueSize}};
  loop::EventNotifier kick_ = *loop::EventNotifier::create();
  loop::EventNotifier call_ = *VhostUserFrontend::create_call_eventfd();
  uint16_t used_ = 0;
};

TEST_F(VhostFrontendTest, DiskIsDrivenStoppedAndDrivenOn) {
  ServedDisk disk(dir_.path("socket"));
  auto frontend = connect(dir_.path("socket"));
  ASSERT_NE(frontend, nullptr);
  EXPECT_EQ(frontend->queue_count_max(), 2);
  virtio_blk_config config = {};
  ASSERT_TRUE(frontend->read_config(0, {reinterpret_cast<uint8_t*>(&config), sizeof(config)}));
  EXPECT_EQ(config.capacity, 64u);

  VhostUserFrontend::Queue wanted = queue();
  VhostUserFrontend::Setup setup{.features = kVirtioVersion1 | (uint64_t{1} << VIRTIO_BLK_F_FLUSH),
                                 .memory = memory_.regions(),
                                 .queues = {&wanted, 1}};
  auto started = frontend->start(setup);
  ASSERT_TRUE(started) << started.error().message();
  run_flush();
  run_flush();
  const auto bases = frontend->stop();
  ASSERT_TRUE(bases);
  EXPECT_THAT(*bases, ::testing::ElementsAre(2));
  wanted.next_available = bases->front();
  ASSERT_TRUE(frontend->start(setup));
  run_flush();
}

TEST_F(VhostFrontendTest, NewSizeIsHeardOf) {
  ServedDisk disk(dir_.path("socket"));
  auto frontend = connect(dir_.path("socket"));
  ASSERT_NE(frontend, nullptr);
  ASSERT_GE(frontend->news_fd(), 0);
  EXPECT_FALSE(frontend->take_config_change());
  disk.device().capacity_changed();
  pollfd ready{.fd = frontend->news_fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
  EXPECT_TRUE(frontend->take_config_change());
  EXPECT_FALSE(frontend->take_config_change());
}

TEST_F(VhostFrontendTest, NextBackEndGoesOnWhereTheLastOneWas) {
  VhostUserFrontend::InflightFile inflight;
  VhostUserFrontend::Queue wanted = queue();
  VhostUserFrontend::Setup setup{.features = kVirtioVersion1 | (uint64_t{1} << VIRTIO_BLK_F_FLUSH),
                                 .memory = memory_.regions(),
                                 .queues = {&wanted, 1},
                                 .inflight = &inflight};
  {
    ServedDisk disk(dir_.path("socket"));
    auto frontend = connect(dir_.path("socket"));
    ASSERT_NE(frontend, nullptr);
    auto created = frontend->create_inflight(1, kQueueSize);
    ASSERT_TRUE(created) << created.error().message();
    inflight = *std::move(created);
    ASSERT_TRUE(frontend->start(setup));
    run_flush();
  }
  const GuestAddress status = offer_flush();  // To nobody.
  ServedDisk disk(dir_.path("socket"));
  auto frontend = connect(dir_.path("socket"));
  ASSERT_NE(frontend, nullptr);
  ASSERT_TRUE(frontend->start(setup));
  while (driver_.used_index() != 2) await_call();
  EXPECT_EQ(memory_.memory().load<uint8_t>(status), VIRTIO_BLK_S_OK);
}

TEST_F(VhostFrontendTest, MoreQueuesThanTheBackEndHasAreRefused) {
  ServedDisk disk(dir_.path("socket"));
  auto frontend = connect(dir_.path("socket"));
  ASSERT_NE(frontend, nullptr);
  const std::vector<VhostUserFrontend::Queue> queues(3, queue());
  const auto started = frontend->start({.memory = memory_.regions(), .queues = queues});
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message(), HasSubstr("has 2 queues, not 3"));
}

TEST_F(VhostFrontendTest, NobodyThereIsSaidSo) {
  const auto frontend = VhostUserFrontend::connect({.socket = dir_.path("nobody")});
  ASSERT_FALSE(frontend);
  EXPECT_THAT(frontend.error().message(), HasSubstr("nobody"));
  EXPECT_FALSE(VhostUserFrontend::connect({.socket = std::string(200, 'x')}));
}

// A back end as bad as the test makes it.
class BadBackendTest : public VhostFrontendTest {
 protected:
  BadBackendTest() {
    std::array<int, 2> ends = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    ours_.reset(ends[0]);
    theirs_.reset(ends[1]);
  }
  loop::Result<std::unique_ptr<VhostUserFrontend>> negotiate(int64_t timeout_ns = kTimeoutNs) {
    return VhostUserFrontend::negotiate(VhostConnection(std::move(ours_), "bad", timeout_ns));
  }
  void answer(VhostRequest request, uint64_t value) {
    VhostMessage reply;
    reply.request = static_cast<uint32_t>(request);
    reply.is_reply = true;
    reply.append(value);
    send(reply);
  }
  void send(const VhostMessage& message, std::span<const int> fds = {}) {
    const auto sent = VhostWriter(message, fds).write(theirs_.get());
    ASSERT_TRUE(sent && *sent);
  }
  // Says beforehand what connecting asks for.
  void answer_all() {
    answer(VhostRequest::kGetFeatures, kVirtioVersion1 | kVhostProtocolFeatures);
    answer(VhostRequest::kGetProtocolFeatures, kVhostConfig | kVhostReplyAck);
    answer(VhostRequest::kSetOwner, 0);
  }

  UniqueFd ours_;
  UniqueFd theirs_;
};

TEST_F(BadBackendTest, SilenceEndsInATimeout) {
  const auto frontend = negotiate(20'000'000);
  ASSERT_FALSE(frontend);
  EXPECT_THAT(frontend.error().message(), HasSubstr("GET_FEATURES: No answer within 20 ms"));
}

TEST_F(BadBackendTest, DeathIsAnError) {
  theirs_.reset();
  EXPECT_FALSE(negotiate());
}

TEST_F(BadBackendTest, AnswerToAnotherRequestIsAnError) {
  answer(VhostRequest::kGetQueueNum, 1);
  EXPECT_FALSE(negotiate());
}

TEST_F(BadBackendTest, AnswerOfAnotherSizeIsAnError) {
  VhostMessage reply;
  reply.request = static_cast<uint32_t>(VhostRequest::kGetFeatures);
  reply.is_reply = true;
  reply.append(uint32_t{1});
  send(reply);
  EXPECT_FALSE(negotiate());
}

TEST_F(BadBackendTest, DescriptorsInAnAnswerThatHasNoneAreAnError) {
  VhostMessage reply;
  reply.request = static_cast<uint32_t>(VhostRequest::kGetFeatures);
  reply.is_reply = true;
  reply.append(uint64_t{1});
  send(reply, std::array{kick_.fd()});
  EXPECT_FALSE(negotiate());
}

TEST_F(BadBackendTest, BackEndThatIsNoDiskIsRefused) {
  answer(VhostRequest::kGetFeatures, kVirtioVersion1);
  const auto frontend = negotiate();
  ASSERT_FALSE(frontend);
  EXPECT_THAT(frontend.error().message(), HasSubstr("no disk"));
}

TEST_F(BadBackendTest, RefusedRequestSaysWhichOne) {
  answer_all();
  auto frontend = negotiate();
  ASSERT_TRUE(frontend) << frontend.error().message();
  answer(VhostRequest::kSetFeatures, 1);
  const auto started = (*frontend)->start({.memory = memory_.regions(), .queues = {}});
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message(), HasSubstr("SET_FEATURES"));
}

TEST_F(BadBackendTest, ConfigurationOfAnotherSizeIsRefused) {
  answer_all();
  auto frontend = negotiate();
  ASSERT_TRUE(frontend);
  VhostMessage reply;
  reply.request = static_cast<uint32_t>(VhostRequest::kGetConfig);
  reply.is_reply = true;
  reply.append(VhostConfigHeader{.size_bytes = 4});
  reply.append(uint32_t{1});
  send(reply);
  std::array<uint8_t, 8> data = {};
  EXPECT_FALSE((*frontend)->read_config(0, data));
}

TEST_F(BadBackendTest, NewsThatMakeNoSenseCloseTheChannel) {
  answer(VhostRequest::kGetFeatures, kVirtioVersion1 | kVhostProtocolFeatures);
  answer(VhostRequest::kGetProtocolFeatures, kVhostConfig | kVhostBackendReq);
  auto frontend = negotiate();
  ASSERT_TRUE(frontend);
  VhostReader reader;
  UniqueFd channel;
  while (!channel) {
    auto request = reader.read(theirs_.get());
    ASSERT_TRUE(request && request->has_value());
    if ((*request)->kind() == VhostRequest::kSetBackendReqFd) channel = *parse_lone_fd(**request);
  }
  const std::array<char, 12> noise = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  ASSERT_EQ(::send(channel.get(), noise.data(), noise.size(), 0), 12);
  EXPECT_FALSE((*frontend)->take_config_change());
  EXPECT_EQ((*frontend)->news_fd(), -1);
}

}  // namespace
}  // namespace skiff::devices
