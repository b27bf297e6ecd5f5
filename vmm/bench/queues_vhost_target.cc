// SPDX-License-Identifier: GPL-2.0-or-later
// The device in another process, behind a vhost-user socket.
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/vhost_user/frontend.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "vmm/bench/queues_target.h"

namespace skiff::vmm {
namespace {

using devices::VhostUserFrontend;
using loop::Error;
using loop::ErrorKind;
using loop::Result;

class VhostTarget final : public QueueTarget {
 public:
  VhostTarget(std::unique_ptr<VhostUserFrontend> frontend, const devices::FrontendMemory& memory)
      : frontend_(std::move(frontend)), memory_(memory) {}

  Result<void> prepare(uint32_t queues) {
    std::array<uint8_t, sizeof(uint64_t)> capacity = {};
    SKIFF_RETURN_IF_ERROR(frontend_->read_config(0, capacity));
    std::memcpy(&capacity_sectors_, capacity.data(), sizeof(capacity_sectors_));
    ucred peer = {};
    socklen_t size = sizeof(peer);
    if (::getsockopt(frontend_->connection_fd(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
      return Error::from_errno(errno, "Asking who serves the socket");
    pid_ = peer.pid;
    for (uint32_t i = 0; i < queues; ++i) {
      auto kick = loop::EventNotifier::create();
      if (!kick) return kick.error();
      kicks_.push_back(*std::move(kick));
    }
    return {};
  }

  uint64_t capacity_sectors() const override { return capacity_sectors_; }
  uint64_t features() const override { return frontend_->features(); }
  uint16_t queue_count() const override { return frontend_->queue_count_max(); }
  pid_t pid() const override { return pid_; }

  Result<void> start(const Start& start) override {
    std::vector<VhostUserFrontend::Queue> queues;
    for (size_t i = 0; i < start.queues.size(); ++i) {
      VhostUserFrontend::Queue queue;
      queue.layout.size = start.queue_size;
      queue.layout.descriptors = {start.queues[i].places.descriptors};
      queue.layout.available = {start.queues[i].places.available};
      queue.layout.used = {start.queues[i].places.used};
      queue.kick_fd = kicks_[i].fd();
      queue.call_fd = start.queues[i].call_fd;
      queues.push_back(queue);
    }
    return frontend_->start(
        {.features = start.features, .memory = memory_.regions(), .queues = queues});
  }
  void kick(uint16_t queue) override { kicks_[queue].notify(); }
  void stop() override {
    // Whoever does not stop is disconnected next.
    [[maybe_unused]] const auto stopped = frontend_->stop();
  }

 private:
  const std::unique_ptr<VhostUserFrontend> frontend_;
  const devices::FrontendMemory& memory_;
  std::vector<loop::EventNotifier> kicks_;
  uint64_t capacity_sectors_ = 0;
  pid_t pid_ = 0;
};

}  // namespace

Result<std::unique_ptr<QueueTarget>> connect_vhost_target(const std::string& socket,
                                                          uint32_t queues,
                                                          const devices::FrontendMemory& memory) {
  auto frontend = VhostUserFrontend::connect({.socket = socket});
  if (!frontend) return frontend.error();
  auto target = std::make_unique<VhostTarget>(*std::move(frontend), memory);
  SKIFF_RETURN_IF_ERROR(target->prepare(queues));
  return std::unique_ptr<QueueTarget>(std::move(target));
}

}  // namespace skiff::vmm
