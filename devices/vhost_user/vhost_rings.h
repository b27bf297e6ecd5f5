// SPDX-License-Identifier: GPL-2.0-or-later
// VhostRings: the queues of a device as a vhost-user front end sets them up, and the
// VirtioTransport through which the device speaks to that front end.
//
// A ring runs once it has a size, addresses, a kick eventfd and is enabled. Whatever changes one
// that runs brings it to rest first, and it goes on from where it was. Nothing of the peer's is
// touched while no ring runs, so memory can be mapped and unmapped then.
//
// Thread: main loop, but for what VirtioTransport says. Tasks do not overlap: one after the other.
// Ownership: borrows loops, device and memory; shut_down() has ended before it goes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/vhost_user/call_line.h"
#include "devices/vhost_user/memory_table.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "devices/virtio/inflight_log.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/home.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class VhostRings final : public VirtioTransport {
 public:
  struct Options {
    loop::EventLoop* main_loop = nullptr;
    VirtioDevice* device = nullptr;        // Offers kVirtioRingReset. Attached to this.
    MemoryTable* memory = nullptr;         // The device was made with its guest().
    std::vector<loop::EventLoop*> homes;   // Of each queue, for as long as this lives.
    std::function<void()> config_changed;  // Main loop.
  };
  explicit VhostRings(Options options);
  ~VhostRings() override;

  size_t count() const { return rings_.size(); }

  // Virtio features, as the driver agreed to them.
  loop::Task<loop::Result<void>> set_features(uint64_t features);
  loop::Task<loop::Result<void>> set_size(QueueIndex queue, uint32_t size);
  loop::Task<loop::Result<void>> set_addresses(VhostVringAddress address);
  loop::Task<loop::Result<void>> set_base(QueueIndex queue, uint32_t index);
  loop::Task<loop::Result<void>> set_kick(QueueIndex queue, loop::UniqueFd fd);
  loop::Result<void> set_call(QueueIndex queue, loop::UniqueFd fd);
  loop::Result<void> set_error(QueueIndex queue, loop::UniqueFd fd);
  loop::Task<loop::Result<void>> set_enabled(QueueIndex queue, bool enabled);
  // Stops the ring until it gets a kick eventfd again; the index it would go on from.
  loop::Task<uint16_t> take_base(QueueIndex queue);
  // Where requests under way are noted from now on; the mapping of a whole inflight file.
  loop::Task<loop::Result<void>> set_inflight(SharedMapping mapping, VhostInflight shape);
  // Runs `change` with all rings at rest.
  loop::Task<loop::Result<void>> change_memory(std::function<loop::Result<void>()> change);
  loop::Task<void> disable_all();
  // Back to the beginning: device stopped, nothing set.
  loop::Task<void> shut_down();

  // VirtioTransport.
  void interrupt_queue(QueueIndex queue) override;
  void interrupt_config() override;
  void need_reset() override;
  // A front end's kick is always an eventfd.
  void set_doorbell_path(QueueIndex, DoorbellPath) override {}

 private:
  struct Ring {
    Ring(loop::EventLoop& its_home, loop::EventLoop& main_loop);
    loop::EventLoop& home;
    std::unique_ptr<CallLine> call;
    uint16_t size = 0;
    uint16_t base = 0;
    std::optional<VhostVringAddress> address;
    std::optional<loop::EventNotifier> kick;
    std::unique_ptr<CallLine> error;  // On the main loop.
    std::optional<InflightLog> log;
    bool enabled = false;
    bool running = false;
  };

  loop::Task<void> stop(QueueIndex queue);
  loop::Task<void> stop_all();
  loop::Task<void> stop_device();
  loop::Result<void> start_if_ready(QueueIndex queue);
  loop::Result<void> start_all_ready();
  loop::Result<QueueLayout> layout_of(Ring& ring);
  loop::Result<void> open_log(QueueIndex queue);
  void signal_errors();

  const Options options_;
  const loop::Home home_;
  std::vector<std::unique_ptr<Ring>> rings_;
  std::optional<uint64_t> features_;
  bool device_started_ = false;
  std::optional<SharedMapping> inflight_;
  VhostInflight inflight_shape_;
};

}  // namespace skiff::devices
