// SPDX-License-Identifier: GPL-2.0-or-later
// A hostile front end before a vhost-user back end with a disk: messages in any order and of any
// form, descriptors of any kind, rings and logs full of anything, files cut short, connections cut
// off. Nothing may crash, hang, or be touched that was not shared.
#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "block/testing/fake_channel.h"
#include "devices/vhost_user/backend.h"
#include "devices/vhost_user/memory_table.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/inflight_log.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::UniqueFd;

constexpr uint16_t kQueues = 2;
constexpr uint16_t kQueueSize = 8;
constexpr uint64_t kMemoryBytes = 32 * 1024;
constexpr uint64_t kUserBase = 0x10'0000;

class Session {
 public:
  explicit Session(FuzzedDataProvider& input)
      : input_(input),
        memory_(::memfd_create("ram", MFD_CLOEXEC)),
        kick_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        call_(::eventfd(0, EFD_CLOEXEC | (input.ConsumeBool() ? EFD_NONBLOCK : 0))) {
    SKIFF_CHECK(::ftruncate(memory_.get(), kMemoryBytes) == 0);
    device_ = *VirtioBlk::create(
        {.queues = std::vector<QueueHome>(kQueues, QueueHome{.loop = &loop_.loop()}),
         .memory = &table_.guest(),
         .image = &image_,
         .queue_size = kQueueSize});
    backend_ =
        *VhostUserBackend::create({.main_loop = &loop_.loop(),
                                   .name = "fuzz",
                                   .device = device_.get(),
                                   .memory = &table_,
                                   .homes = std::vector<loop::EventLoop*>(kQueues, &loop_.loop())});
    connect();
    if (input.ConsumeBool()) set_up();
  }
  ~Session() {
    bool stopped = false;
    backend_->stop([&stopped] { stopped = true; });
    loop_.run_until_idle();
    SKIFF_CHECK(stopped && table_.region_count() == 0);
  }

  void run() {
    for (int steps = 0; steps < 100 && input_.remaining_bytes() > 0; ++steps) step();
  }

 private:
  void step() {
    switch (input_.ConsumeIntegralInRange<int>(0, 7)) {
      case 0:
      case 1:
      case 2:
        return send_request();
      case 3:
        return send_noise();
      case 4:
      case 5:
        return scribble();
      case 6: {
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t kicked = ::write(kick_.get(), &one, sizeof(one));
        return loop_.run_until_idle();
      }
      default:
        if (input_.ConsumeBool()) peer_.reset();
        // Cut short under the mapping, or made whole again.
        SKIFF_CHECK(
            ::ftruncate(memory_.get(), input_.ConsumeIntegralInRange<off_t>(0, kMemoryBytes)) == 0);
        loop_.run_until_idle();
        if (!backend_->has_front_end()) connect();
    }
  }

  void connect() {
    std::array<int, 2> ends = {-1, -1};
    SKIFF_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) ==
                0);
    peer_.reset(ends[0]);
    SKIFF_CHECK(backend_->serve(UniqueFd(ends[1])));
    loop_.run_until_idle();
  }

  void send(const VhostMessage& message, std::span<const int> fds) {
    if (peer_) [[maybe_unused]]
      const auto sent = VhostWriter(message, fds).write(peer_.get());
    loop_.run_until_idle();
    std::array<char, 4096> replies;
    while (peer_ && ::recv(peer_.get(), replies.data(), replies.size(), MSG_DONTWAIT) > 0) {
    }
    if (!backend_->has_front_end()) connect();
  }
  template <typename... Parts>
  void request(VhostRequest kind, std::span<const int> fds, const Parts&... parts) {
    VhostMessage message;
    message.request = static_cast<uint32_t>(kind);
    (message.append(parts), ...);
    send(message, fds);
  }

  // What a front end does that wants to be served.
  void set_up() {
    const std::array memory = {memory_.get()};
    const std::array kick = {kick_.get()};
    const std::array call = {call_.get()};
    request(VhostRequest::kSetProtocolFeatures, {},
            uint64_t{kVhostMultiqueue | kVhostReplyAck | kVhostConfig | kVhostInflightShmfd |
                     kVhostResetDevice | kVhostConfigureMemSlots | kVhostBackendReq});
    request(VhostRequest::kSetFeatures, {}, kVhostProtocolFeatures | kVirtioVersion1);
    request(VhostRequest::kSetMemTable, memory, VhostMemoryTableHeader{.count = 1},
            VhostMemoryRegion{.size_bytes = kMemoryBytes, .user_address = kUserBase});
    if (input_.ConsumeBool()) {
      request(VhostRequest::kSetInflightFd, memory,
              VhostInflight{.map_bytes = kQueues * InflightLog::bytes_for(kQueueSize),
                            .map_offset = 16 * 1024,
                            .queue_count = kQueues,
                            .queue_size = kQueueSize});
    }
    request(VhostRequest::kSetVringNum, {}, VhostVringState{0, kQueueSize});
    request(VhostRequest::kSetVringAddr, {},
            VhostVringAddress{
                .descriptors = kUserBase, .used = kUserBase + 512, .available = kUserBase + 1024});
    request(VhostRequest::kSetVringCall, call, uint64_t{0});
    request(VhostRequest::kSetVringKick, kick, uint64_t{0});
    request(VhostRequest::kSetVringEnable, {}, VhostVringState{0, 1});
  }

  void send_request() {
    VhostMessage message;
    message.request = input_.ConsumeIntegralInRange<uint32_t>(0, 45);
    message.needs_reply = input_.ConsumeBool();
    const auto words = input_.ConsumeIntegralInRange<size_t>(0, 10);
    for (size_t i = 0; i < words; ++i) {
      // Numbers that mean something, more often than not.
      constexpr std::array<uint64_t, 10> kNumbers = {
          0, 1, kQueueSize, 4096, kMemoryBytes, kUserBase, kUserBase + 512, 1ull << 32, 60, ~0ull};
      message.append(input_.ConsumeBool() ? input_.PickValueInArray(kNumbers)
                                          : input_.ConsumeIntegral<uint64_t>());
    }
    message.payload.resize(message.payload.size() +
                           input_.ConsumeIntegralInRange<size_t>(0, 16) * 4);
    const std::array kinds = {memory_.get(), kick_.get(), call_.get(), peer_.get()};
    std::vector<int> fds;
    for (auto count = input_.ConsumeIntegralInRange<size_t>(0, 3); count > 0; --count)
      if (const int fd = input_.PickValueInArray(kinds); fd >= 0) fds.push_back(fd);
    send(message, fds);
  }
  void send_noise() {
    const auto bytes = input_.ConsumeBytes<uint8_t>(input_.ConsumeIntegralInRange<size_t>(0, 64));
    if (peer_) ::send(peer_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    loop_.run_until_idle();
    if (!backend_->has_front_end()) connect();
  }
  // Rings, descriptors, headers, logs: all of it is in there.
  void scribble() {
    const auto at =
        input_.ConsumeIntegralInRange<off_t>(0, 2048) + (input_.ConsumeBool() ? 16 * 1024 : 0);
    const auto bytes = input_.ConsumeBytes<uint8_t>(input_.ConsumeIntegralInRange<size_t>(0, 64));
    [[maybe_unused]] const ssize_t written =
        ::pwrite(memory_.get(), bytes.data(), bytes.size(), at);
  }

  FuzzedDataProvider& input_;
  UniqueFd memory_;
  UniqueFd kick_;
  UniqueFd call_;
  UniqueFd peer_;
  loop::ManualLoop loop_;
  block::FakeBackend image_{
      {.sectors = 32, .completion = block::FakeBackend::Completion::kNextTurn}};
  MemoryTable table_;
  std::unique_ptr<VirtioBlk> device_;
  std::unique_ptr<VhostUserBackend> backend_;
};

}  // namespace
}  // namespace skiff::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  skiff::loop::set_log_level(skiff::loop::LogLevel::kOff);
  FuzzedDataProvider input(data, size);
  skiff::devices::Session session(input);
  session.run();
  return 0;
}
