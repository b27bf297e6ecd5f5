// SPDX-License-Identifier: GPL-2.0-or-later
// BackendFixture: a virtio-blk device behind a vhost-user back end, and a peer that sends it
// whatever a test likes, all on one thread.
//
// Thread: the test's.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "block/testing/fake_channel.h"
#include "devices/testing/guest_driver.h"
#include "devices/vhost_user/backend.h"
#include "devices/vhost_user/frontend.h"
#include "devices/vhost_user/memory_table.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_notifier.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class BackendFixture : public ::testing::Test {
 protected:
  static constexpr uint16_t kQueues = 2;
  static constexpr uint16_t kQueueSize = 16;
  static constexpr uint64_t kMemoryBytes = 64 * 1024;
  static constexpr uint64_t kUserBase =
      0x7f00'0000'0000;  // Where the peer says that its memory is.
  static constexpr uint64_t kAllProtocolFeatures =
      kVhostMultiqueue | kVhostReplyAck | kVhostBackendReq | kVhostConfig | kVhostInflightShmfd |
      kVhostResetDevice | kVhostConfigureMemSlots;

  BackendFixture() {
    loop::set_log_level(loop::LogLevel::kOff);
    make_device();
    connect();
  }
  ~BackendFixture() override {
    bool stopped = false;
    backend_->stop([&stopped] { stopped = true; });
    settle();
    EXPECT_TRUE(stopped);
  }

  void make_device() {
    device_ = *VirtioBlk::create(
        {.queues = std::vector<QueueHome>(kQueues, QueueHome{.loop = &loop_.loop()}),
         .memory = &table_.guest(),
         .image = &image_,
         .serial = "vhost",
         .queue_size = kQueueSize});
    backend_ =
        *VhostUserBackend::create({.main_loop = &loop_.loop(),
                                   .name = "disk",
                                   .device = device_.get(),
                                   .memory = &table_,
                                   .homes = std::vector<loop::EventLoop*>(kQueues, &loop_.loop())});
  }
  // Turns until nothing happens any more, failing what the image holds if somebody waits for it.
  void settle() {
    loop_.run_until_idle();
    while (image_.has_channel() && image_.channel().in_flight() > 0) {
      image_.channel().fail(0, -EIO);
      loop_.run_until_idle();
    }
  }
  void connect() {
    std::array<int, 2> ends = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    peer_.reset(ends[0]);
    reader_ = VhostReader();
    ASSERT_TRUE(backend_->serve(loop::UniqueFd(ends[1])));
    loop_.run_until_idle();
  }
  bool is_connected() {
    loop_.run_until_idle();
    return backend_->has_front_end();
  }

  template <typename... Parts>
  static VhostMessage make(VhostRequest kind, const Parts&... parts) {
    VhostMessage message;
    message.request = static_cast<uint32_t>(kind);
    (message.append(parts), ...);
    return message;
  }
  void send(const VhostMessage& message, std::span<const int> fds = {}) {
    [[maybe_unused]] const auto sent = VhostWriter(message, fds).write(peer_.get());
    loop_.run_until_idle();
  }
  void send(const VhostMessage& message, int fd) { send(message, std::array{fd}); }
  std::optional<VhostMessage> receive() {
    loop_.run_until_idle();
    auto message = reader_.read(peer_.get());
    return message ? *std::move(message) : std::nullopt;
  }
  // Sends it with a wish for an acknowledgement. 0: done; 1: failed; nothing: sent away.
  std::optional<uint64_t> ack(VhostMessage message, std::span<const int> fds = {}) {
    message.needs_reply = true;
    send(message, fds);
    const auto reply = receive();
    if (!reply) return std::nullopt;
    const auto value = parse_u64(*reply);
    return value ? std::optional(*value) : std::nullopt;
  }
  std::optional<uint64_t> ack(VhostMessage message, int fd) {
    return ack(std::move(message), std::array{fd});
  }

  void negotiate(uint64_t features = kVirtioVersion1 | kVhostProtocolFeatures) {
    send(make(VhostRequest::kSetProtocolFeatures, uint64_t{kAllProtocolFeatures}));
    ASSERT_EQ(ack(make(VhostRequest::kSetFeatures, features)), 0u);
  }
  void share_memory() {
    ASSERT_EQ(ack(make(VhostRequest::kSetMemTable, VhostMemoryTableHeader{.count = 1},
                       VhostMemoryRegion{.size_bytes = kMemoryBytes, .user_address = kUserBase}),
                  memory_.regions().front().fd),
              0u);
  }
  VhostVringAddress address_of(uint32_t queue) const {
    const QueueLayout& layout = driver_->layout();
    return {.index = queue,
            .descriptors = kUserBase + layout.descriptors.value,
            .used = kUserBase + layout.used.value,
            .available = kUserBase + layout.available.value};
  }
  void set_up_ring(uint32_t queue = 0, uint32_t base = 0) {
    ASSERT_EQ(ack(make(VhostRequest::kSetVringNum, VhostVringState{queue, kQueueSize})), 0u);
    ASSERT_EQ(ack(make(VhostRequest::kSetVringBase, VhostVringState{queue, base})), 0u);
    ASSERT_EQ(ack(make(VhostRequest::kSetVringAddr, address_of(queue))), 0u);
    ASSERT_EQ(ack(make(VhostRequest::kSetVringCall, uint64_t{queue}), call_.fd()), 0u);
    ASSERT_EQ(ack(make(VhostRequest::kSetVringKick, uint64_t{queue}), kick_.fd()), 0u);
  }
  void enable_ring(uint32_t queue = 0) {
    ASSERT_EQ(ack(make(VhostRequest::kSetVringEnable, VhostVringState{queue, 1})), 0u);
  }
  void start_all() {
    negotiate();
    share_memory();
    set_up_ring();
    enable_ring();
    call_.consume();
  }

  // A read of one sector; the status byte is where it says.
  GuestAddress offer_read(uint64_t sector = 0) {
    struct Header {
      uint32_t type;
      uint32_t reserved;
      uint64_t sector;
    };
    const Header header{VIRTIO_BLK_T_IN, 0, sector};
    const GuestAddress data = driver_->allocate(512);
    const GuestAddress status = driver_->allocate(1);
    memory_.memory().store(status, uint8_t{0xee});
    driver_->offer({driver_->allocate_with(std::as_bytes(std::span(&header, 1))),
                    DriverBuffer::writable(data, 512), DriverBuffer::writable(status, 1)});
    return status;
  }
  void kick() {
    kick_.notify();
    loop_.run_until_idle();
  }
  uint8_t status(GuestAddress at) const { return *memory_.memory().load<uint8_t>(at); }

  loop::ManualLoop loop_;
  block::FakeBackend image_{
      {.sectors = 64, .completion = block::FakeBackend::Completion::kNextTurn}};
  MemoryTable table_;
  std::unique_ptr<VirtioBlk> device_;
  std::unique_ptr<VhostUserBackend> backend_;
  // The peer's.
  loop::UniqueFd peer_;
  VhostReader reader_;
  FrontendMemory memory_ = *FrontendMemory::create(kMemoryBytes);
  std::optional<GuestDriver> driver_{std::in_place, memory_.memory(),
                                     GuestDriver::Options{.queue_size = kQueueSize}};
  loop::EventNotifier kick_ = *loop::EventNotifier::create();
  loop::EventNotifier call_ = *VhostUserFrontend::create_call_eventfd();
};

}  // namespace skiff::devices
