// SPDX-License-Identifier: GPL-2.0-or-later
// ScriptedBackend: a vhost-user back end that answers as a test wants it, and serves no ring. It
// keeps a list of what it was asked.
//
// Thread: any; it listens on one of its own. Ownership: owns socket and thread.
#pragma once

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/virtio/inflight_log.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_notifier.h"
#include "loop/memory_file.h"
#include "loop/mutex.h"
#include "loop/thread.h"
#include "loop/unique_fd.h"
#include "loop/unix_socket.h"

namespace skiff::devices {

class ScriptedBackend {
 public:
  struct Asked {
    VhostRequest request;
    uint32_t connection;  // Counted from 1.
    std::vector<std::byte> payload;
  };

  explicit ScriptedBackend(const std::string& socket)
      : listener_(*loop::listen_unix(socket)),
        thread_(*loop::Thread::create({.name = "scripted"}, [this] { run(); })) {}
  ~ScriptedBackend() {
    stop_.notify();
    thread_.join();
  }
  ScriptedBackend(const ScriptedBackend&) = delete;
  ScriptedBackend& operator=(const ScriptedBackend&) = delete;

  // From now on, or up to now.
  void leave_unanswered(VhostRequest request) {
    const loop::MutexLock lock(mutex_);
    unanswered_ = request;
  }
  // Closes the connection instead of answering, once.
  void hang_up_on(VhostRequest request) {
    const loop::MutexLock lock(mutex_);
    hang_up_on_ = request;
  }
  // A connection on which the front end has sent its end is closed by hang_up() only; others may
  // come meanwhile.
  void outstay() {
    const loop::MutexLock lock(mutex_);
    outstays_ = true;
  }
  void hang_up() {
    const loop::MutexLock lock(mutex_);
    connection_.reset();
    left_.reset();
  }
  std::vector<Asked> asked() {
    const loop::MutexLock lock(mutex_);
    return asked_;
  }
  // Waits until it has been asked so often on that connection; false after half a minute.
  bool await(VhostRequest request, uint32_t connection, size_t times = 1) {
    return happens([&] { return count(request, connection) >= times; });
  }
  // What must not come is given some attempts' time.
  bool comes_soon(VhostRequest request, uint32_t connection) {
    return happens([&] { return count(request, connection) > 0; }, 20);
  }
  bool await_leave() {
    return happens([this] {
      const loop::MutexLock lock(mutex_);
      return bool{left_};
    });
  }
  size_t count(VhostRequest request, uint32_t connection) {
    return static_cast<size_t>(std::ranges::count_if(asked(), [&](const Asked& one) {
      return one.request == request && one.connection == connection;
    }));
  }

 private:
  template <typename Condition>
  static bool happens(Condition condition, int for_ms = 30'000) {
    for (int tries = 0; tries < for_ms; ++tries) {
      if (condition()) return true;
      ::poll(nullptr, 0, 1);
    }
    return false;
  }
  void run() {
    while (true) {
      int fd = listener_.get();
      {
        const loop::MutexLock lock(mutex_);
        if (connection_) fd = connection_.get();
      }
      std::array<pollfd, 2> ready = {pollfd{stop_.fd(), POLLIN, 0}, pollfd{fd, POLLIN, 0}};
      // hang_up() is noticed after a moment.
      ::poll(ready.data(), ready.size(), 1);
      if (ready[0].revents != 0) return;
      if (ready[1].revents != 0) turn(fd);
    }
  }
  void turn(int fd) {
    const loop::MutexLock lock(mutex_);
    if (fd == listener_.get()) {
      connection_.reset(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      reader_ = VhostReader();
      ++connections_;
      return;
    }
    if (!connection_) return;
    auto message = reader_.read(connection_.get());
    if (!message) {
      if (outstays_) left_ = std::move(connection_);
      return connection_.reset();
    }
    if (message->has_value()) answer(**message);
  }
  void answer(const VhostMessage& message) SKIFF_REQUIRES(mutex_) {
    asked_.push_back({message.kind(), connections_, message.payload});
    if (message.kind() == unanswered_) return;
    if (message.kind() == hang_up_on_) {
      hang_up_on_ = VhostRequest{};
      return connection_.reset();
    }
    VhostMessage reply;
    reply.request = message.request;
    reply.is_reply = true;
    loop::UniqueFd file;
    switch (message.kind()) {
      case VhostRequest::kGetFeatures:
        reply.append(kVhostProtocolFeatures | kVirtioVersion1 | kVirtioRingIndirectDesc |
                     kVirtioRingEventIdx | uint64_t{1} << VIRTIO_BLK_F_FLUSH |
                     uint64_t{1} << VIRTIO_BLK_F_CONFIG_WCE);
        break;
      case VhostRequest::kGetProtocolFeatures:
        reply.append(kVhostReplyAck | kVhostConfig | kVhostInflightShmfd);
        break;
      case VhostRequest::kGetVringBase:
      case VhostRequest::kGetConfig:
        reply.payload = message.payload;
        if (message.kind() == VhostRequest::kGetConfig) fill_config(reply);
        break;
      case VhostRequest::kGetInflightFd: {
        const uint64_t bytes = InflightLog::bytes_for(kQueueSize);
        file = *loop::create_sealed_memory("scripted-inflight", bytes);
        reply.append(VhostInflight{.map_bytes = bytes, .queue_count = 1, .queue_size = kQueueSize});
        break;
      }
      default:
        if (!message.needs_reply) return;
        reply.append(uint64_t{0});
    }
    const std::array fds = {file.get()};
    EXPECT_TRUE(VhostWriter(reply, std::span(fds).first(file ? 1u : 0u)).write(connection_.get()));
  }
  static void fill_config(VhostMessage& reply) {
    const auto config = std::span(reply.payload).subspan(sizeof(VhostConfigHeader));
    std::ranges::fill(config, std::byte{0});
    if (config.size() > offsetof(virtio_blk_config, wce))
      config[offsetof(virtio_blk_config, wce)] = std::byte{1};
  }

  static constexpr uint16_t kQueueSize = 16;
  const loop::UniqueFd listener_;
  const loop::EventNotifier stop_ = *loop::EventNotifier::create();
  loop::Mutex mutex_;
  loop::UniqueFd connection_ SKIFF_GUARDED_BY(mutex_);
  VhostReader reader_ SKIFF_GUARDED_BY(mutex_);
  std::vector<Asked> asked_ SKIFF_GUARDED_BY(mutex_);
  VhostRequest unanswered_ SKIFF_GUARDED_BY(mutex_) = {};
  VhostRequest hang_up_on_ SKIFF_GUARDED_BY(mutex_) = {};
  uint32_t connections_ SKIFF_GUARDED_BY(mutex_) = 0;
  bool outstays_ SKIFF_GUARDED_BY(mutex_) = false;
  loop::UniqueFd left_ SKIFF_GUARDED_BY(mutex_);
  loop::Thread thread_;  // Begins when all else is there.
};

}  // namespace skiff::devices
