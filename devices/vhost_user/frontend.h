// SPDX-License-Identifier: GPL-2.0-or-later
// VhostUserFrontend: the driver's side of vhost-user: a device that another process serves.
//
// The control plane only. Queues are shared memory and eventfds, which their users drive by
// themselves: kick by writing to the queue's kick eventfd, be told by its call eventfd. connect()
// agrees on protocol features, start() hands over memory and queues, stop() brings them to rest.
// Calls block for at most the time-out; after an error the connection is of no more use: make a new
// one, and start() with the same inflight file carries on where the dead back end was.
//
// Thread: one at a time, and no loop that serves anything. Ownership: borrows memory, eventfds and
// inflight file: the kernel keeps them for the other side.
//
//   auto memory = FrontendMemory::create(64 << 20);
//   auto disk = VhostUserFrontend::connect({.socket = "/run/disk.sock"});
//   auto kick = EventNotifier::create();  auto call = VhostUserFrontend::create_call_eventfd();
//   GuestDriver driver(memory->memory(), {.queue_size = 128, ...});
//   const VhostUserFrontend::Queue queue{driver.layout(), kick->fd(), call->fd()};
//   (*disk)->start({.features = features, .memory = memory->regions(), .queues = {&queue, 1}});
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/connection.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

// Memory for drivers in this process: one region at guest address 0, zeroed.
class FrontendMemory {
 public:
  static loop::Result<FrontendMemory> create(uint64_t size_bytes);  // Whole pages.
  const GuestMemory& memory() const { return memory_; }
  std::span<const SharedRegion> regions() const { return {&region_, 1}; }

 private:
  FrontendMemory() = default;
  loop::UniqueFd fd_;
  SharedMapping mapping_;
  SharedRegion region_;
  GuestMemory memory_;
};

class VhostUserFrontend {
 public:
  struct Options {
    std::string socket;
    int64_t timeout_ns = 5'000'000'000;  // Of each answer.
  };
  // What survives a back end: which requests it had taken.
  struct InflightFile {
    loop::UniqueFd fd;
    VhostInflight shape;
  };
  struct Queue {
    QueueLayout layout;  // In guest addresses; `resume` and `doorbell` are not used.
    int kick_fd = -1;    // EventNotifier::create() makes a good one.
    int call_fd = -1;    // create_call_eventfd(); -1: the driver looks at the ring by itself.
    uint16_t next_available = 0;  // The ring's first entry that the back end has not seen.
  };
  struct Setup {
    uint64_t features = 0;                   // The driver's, out of features().
    std::span<const SharedRegion> memory;    // At most 8.
    std::span<const Queue> queues;           // Of queue 0, 1, ...; size 0: not used.
    const InflightFile* inflight = nullptr;  // Null: not kept.
  };

  // Fails with kNotFound or kIo when nobody listens, and with kUnsupported when the other side is
  // no vhost-user back end that can tell a configuration.
  static loop::Result<std::unique_ptr<VhostUserFrontend>> connect(const Options& options);
  // Over a connection that came another way.
  static loop::Result<std::unique_ptr<VhostUserFrontend>> negotiate(VhostConnection connection);

  uint64_t features() const { return features_; }  // Offered, virtio's only.
  bool can_keep_inflight() const { return has(kVhostInflightShmfd); }
  uint16_t queue_count_max() const { return queue_count_max_; }
  // Readable, and at its end, when the back end is gone: nothing else ever comes.
  int connection_fd() const { return connection_.fd(); }
  // Readable when the device's configuration has changed; see take_config_change(). -1: never.
  int news_fd() const { return news_.get(); }
  // True when there was such news. Never blocks.
  bool take_config_change();

  loop::Result<void> read_config(uint32_t offset_bytes, std::span<uint8_t> data);
  loop::Result<void> write_config(uint32_t offset_bytes, std::span<const uint8_t> data);

  // kUnsupported when the back end cannot.
  loop::Result<InflightFile> create_inflight(uint16_t queue_count, uint16_t queue_size);
  loop::Result<void> start(const Setup& setup);
  // Each queue's next entry of the available ring; all before it has been answered.
  loop::Result<std::vector<uint16_t>> stop();

  // Non-blocking, which back ends can write to at the least cost.
  static loop::Result<loop::EventNotifier> create_call_eventfd();

 private:
  explicit VhostUserFrontend(VhostConnection connection) : connection_(std::move(connection)) {}
  bool has(uint64_t protocol_feature) const { return (protocol_features_ & protocol_feature) != 0; }
  loop::Result<void> agree();
  loop::Result<void> open_news();
  template <typename T>
  loop::Result<void> set(VhostRequest request, const T& value, std::span<const int> fds = {});
  loop::Result<void> share_memory(std::span<const SharedRegion> memory);
  loop::Result<void> start_queue(uint16_t index, const Queue& queue,
                                 std::span<const SharedRegion> memory);

  VhostConnection connection_;
  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  uint16_t queue_count_max_ = 1;
  loop::UniqueFd news_;
  VhostReader news_reader_;
  std::vector<uint16_t> started_;
};

}  // namespace skiff::devices
