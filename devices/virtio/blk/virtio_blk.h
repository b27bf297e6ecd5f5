// SPDX-License-Identifier: GPL-2.0-or-later
// VirtioBlk: a virtio block device (virtio 1.2, 5.2) over an image.
//
// One queue, whose home is the loop given at creation. Thread: as VirtioDevice. Ownership: borrows
// image, memory and loop; they outlive it, and it is stopped before it is destroyed.
#pragma once

#include <linux/virtio_blk.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/error_policy.h"
#include "devices/virtio/blk/blk_queue.h"
#include "devices/virtio/queue_set.h"
#include "devices/virtio/virtio_device.h"

namespace skiff::devices {

class VirtioBlk final : public VirtioDevice, private QueueOwner {
 public:
  struct Options {
    loop::EventLoop* home = nullptr;
    const GuestMemory* memory = nullptr;
    block::BlockBackend* image = nullptr;
    std::string name = "virtio-blk";  // For messages: which disk.
    std::string serial;               // At most 20 bytes; seen by the guest in /dev/disk/by-id.
    uint16_t queue_size = 256;        // A power of two from 4 to 1024.
    block::ErrorPolicies errors;      // kStop calls `stopped`, once until retry_failed().
    std::function<void(const BlkStop&)> stopped = {};  // On the home loop.
  };

  // kInvalidArgument for a serial number or a queue size that cannot be.
  static loop::Result<std::unique_ptr<VirtioBlk>> create(const Options& options);
  ~VirtioBlk() override;

  VirtioId id() const override { return VirtioId::kBlock; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override { return features_; }
  uint16_t queue_count() const override { return queues_->count(); }
  uint16_t queue_size_max(QueueIndex queue) const override {
    return queues_->runner(queue).size_max();
  }
  const loop::EventNotifier& doorbell(QueueIndex queue) const override {
    return queues_->runner(queue).doorbell();
  }
  void read_config(uint64_t offset_bytes, std::span<uint8_t> data) const override;
  void write_config(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  void attach(VirtioTransport& transport) override;
  void start(const VirtioStart& start) override;
  void stop(std::function<void()> stopped) override;

  // Submits again what kStop has parked; nothing when there is nothing. Thread: any, but never at
  // the same time as stop().
  void retry_failed();

  // For the image's DrainPoint.
  block::DrainParty& drain_party() { return queue_; }
  // The image has another size; it was drained meanwhile. Tells the driver. Thread: any.
  void capacity_changed();

  // Thread: any.
  const BlkQueueMetrics& metrics() const { return queue_.metrics(); }
  // Thread: home loop.
  loop::LatencyHistogram latency() const { return queue_.latency(); }

 private:
  VirtioBlk(const Options& options, std::unique_ptr<QueueSet> queues);
  void fill_config(uint16_t queue_size);

  // QueueOwner, on the home loop.
  void queues_started(uint64_t features) override { queue_.start(features); }
  void queues_stopping() override { queue_.stopping(); }
  void queues_stopped() override;
  QueueHandler::Served serve(QueueRunner& runner) override { return queue_.serve(runner); }

  const std::string name_;
  uint64_t features_ = 0;
  virtio_blk_config config_ = {};  // But for what may change.
  std::atomic<uint64_t> capacity_sectors_{0};
  VirtioTransport* transport_ = nullptr;
  BlkShared shared_;
  BlkQueue queue_;
  std::unique_ptr<QueueSet> queues_;
};

}  // namespace skiff::devices
