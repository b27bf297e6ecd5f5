// SPDX-License-Identifier: GPL-2.0-or-later
// QueueDoorbells: the doorbells of a device's queues, attached while the queue is in use, its kicks
// go through the kernel, and the transport's registers have an address, wherever that is at the
// time.
//
// A doorbell that is refused costs speed, not function: the guest's write then arrives as a
// register access. Thread: any. Its mutex is held while a doorbell is attached or detached (a
// system call that ends soon), so no loop takes it on a request's path.
// Ownership: part of a transport; borrows the hub and the device. Detaches all when it goes.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "devices/core/doorbell.h"
#include "devices/virtio/virtio_device.h"
#include "loop/mutex.h"

namespace skiff::devices {

class QueueDoorbells {
 public:
  // Where the doorbell of queue `q` is: base + offset + q * stride. Without a stride all queues
  // share one address, and the value written tells them apart.
  struct Layout {
    uint64_t offset_bytes = 0;
    uint32_t stride_bytes = 0;
    uint32_t size_bytes = 0;  // Of the access; 0: any.
  };

  QueueDoorbells(DoorbellHub& hub, const VirtioDevice& device, const Layout& layout);
  ~QueueDoorbells();
  QueueDoorbells(const QueueDoorbells&) = delete;
  QueueDoorbells& operator=(const QueueDoorbells&) = delete;

  // Where the registers are now; nothing: nowhere.
  void set_base(std::optional<uint64_t> base);
  // The queues with a size have a doorbell from now on; none has.
  void start(const VirtioStart& start);
  void stop();
  // One queue, of a device that is started.
  void start_queue(QueueIndex queue);
  void stop_queue(QueueIndex queue);
  // Over starts and stops.
  void set_path(QueueIndex queue, DoorbellPath path);

 private:
  struct Queue {
    bool is_used = false;
    DoorbellPath path = DoorbellPath::kKernel;
    std::optional<DoorbellAddress> attached;
  };

  DoorbellAddress address_of(QueueIndex queue, uint64_t base) const;
  bool wants(const Queue& queue) const SKIFF_REQUIRES(mutex_);
  void detach_if_unwanted(QueueIndex index) SKIFF_REQUIRES(mutex_);
  void update(QueueIndex index) SKIFF_REQUIRES(mutex_);
  void update_all() SKIFF_REQUIRES(mutex_);
  void set_used(QueueIndex queue, bool used);

  DoorbellHub& hub_;
  const VirtioDevice& device_;
  const Layout layout_;
  loop::Mutex mutex_;
  std::optional<uint64_t> base_ SKIFF_GUARDED_BY(mutex_);
  std::vector<Queue> queues_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
