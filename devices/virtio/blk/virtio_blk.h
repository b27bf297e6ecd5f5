// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioBlk: a virtio block device (virtio 1.2, 5.2) over an image.
//
// Each queue has a home of its own, where its requests are submitted and completed, and which may
// be changed at any time. Thread: as VirtioDevice; the rest any, where nothing is said. Ownership:
// borrows image, memory and loops; they outlive it, and it is stopped before it is destroyed.
#pragma once

#include <linux/virtio_blk.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/error_policy.h"
#include "devices/core/msi.h"
#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/blk/blk_queue.h"
#include "devices/virtio/blk/blk_queue_control.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/used_publisher.h"
#include "devices/virtio/virtio_device.h"
#include "loop/mutex.h"

namespace skiff::devices {

class VirtioBlk final : public VirtioDevice, private PublisherSource {
 public:
  static constexpr size_t kQueuesMax = 1024;

  struct Options {
    std::vector<QueueHome> queues;  // One for each queue; at least one, at most kQueuesMax.
    const GuestMemory* memory = nullptr;
    block::BlockBackend* image = nullptr;
    std::string name = "virtio-blk";  // For messages: which disk.
    std::string serial;               // At most 20 bytes; seen by the guest in /dev/disk/by-id.
    uint16_t queue_size = 256;        // A power of two from 4 to 1024.
    bool timed = true;                // False only to find out what measuring costs.
    uint32_t segments_max = 254;      // Of a request; fewer where queues may be shorter than ours.
    bool discard = true;              // Offer what gives room in the image back, if it can.
    block::ErrorPolicies errors;      // kStop calls `stopped`, once until retry_failed().
    std::function<void(const BlkStop&)> stopped = {};  // On the home loop of some queue.
    // As VirtioDevice::interrupt_target_changed().
    std::function<void(QueueIndex, std::optional<MsiMessage>)> interrupt_target_changed = {};
    // The first request after tell_next_request(). On the home loop of some queue.
    std::function<void()> active = {};
  };

  // kInvalidArgument for a serial number, a queue size or a number of queues that cannot be.
  static loop::Result<std::unique_ptr<VirtioBlk>> create(const Options& options);
  ~VirtioBlk() override;

  VirtioId id() const override { return VirtioId::kBlock; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override { return features_; }
  uint16_t queue_count() const override { return static_cast<uint16_t>(queues_.size()); }
  uint16_t queue_size_max(QueueIndex queue) const override { return queues_[queue]->size_max(); }
  const loop::EventNotifier& doorbell(QueueIndex queue) const override {
    return queues_[queue]->doorbell();
  }
  void kick(QueueIndex queue) override { queues_[queue]->kick(); }
  void interrupt_target_changed(QueueIndex queue, std::optional<MsiMessage> message) override;
  loop::EventLoop* home_of_this_thread() const override;
  void read_config(uint64_t offset_bytes, std::span<uint8_t> data) const override;
  void write_config(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  void attach(VirtioTransport& transport) override;
  void start(const VirtioStart& start) override;
  void stop(std::function<void()> stopped) override;
  void reset_queue(QueueIndex queue, std::function<void()> done) override;
  void start_queue(QueueIndex queue, const QueueLayout& layout) override;

  // Gives a queue another home, or another way there. What is in flight completes first, that of
  // this queue only; the ring goes on where it is, and nothing is lost or cancelled. When the image
  // gives no channel at the new home, the queue stays where it is. `moved` runs on an arbitrary
  // thread, at once while the device is not started. Moves of one queue follow one another.
  void move_queue(QueueIndex queue, const QueueHome& home, std::function<void()> moved);
  QueueHome queue_home(QueueIndex queue) const { return queues_[queue]->home(); }
  BlkQueueStats queue_stats(QueueIndex queue) const { return queues_[queue]->stats(); }

  // Options::active is called when the driver next rings, once.
  void tell_next_request() { shared_.tell_active.store(true, std::memory_order_relaxed); }

  // Submits again what kStop has parked; nothing when there is nothing.
  void retry_failed();

  // For the image's DrainPoint, which may join it with any loop: it passes on to the queue's home.
  block::DrainParty& drain_party(QueueIndex queue) { return *queues_[queue]; }
  // The image has another size; it was drained meanwhile. Tells the driver. Thread: any.
  void capacity_changed();

 private:
  explicit VirtioBlk(const Options& options);
  void fill_config(const Options& options);
  void note_vcpu_loop(const QueueHome& home);

  // PublisherSource.
  std::shared_ptr<UsedPublisher> publisher_on(loop::EventLoop& loop) override;

  const std::string name_;
  uint64_t features_ = 0;
  virtio_blk_config config_ = {};  // But for what may change.
  std::atomic<uint64_t> capacity_sectors_{0};
  const std::function<void(QueueIndex, std::optional<MsiMessage>)> interrupt_target_changed_;
  VirtioTransport* transport_ = nullptr;
  BlkShared shared_;
  std::vector<std::unique_ptr<BlkQueueControl>> queues_;  // All there once it is created.

  mutable loop::Mutex mutex_;
  bool is_started_ SKIFF_GUARDED_BY(mutex_) = false;
  uint64_t agreed_features_ SKIFF_GUARDED_BY(mutex_) = 0;  // Of the latest start.
  // One for each loop where a queue is at work; taken and given back on that loop's thread alone.
  struct LoopPublisher {
    loop::EventLoop* loop;
    std::weak_ptr<UsedPublisher> publisher;
  };
  std::vector<LoopPublisher> publishers_ SKIFF_GUARDED_BY(mutex_);
  std::vector<loop::EventLoop*> vcpu_loops_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
