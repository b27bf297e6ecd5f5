// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/queue_doorbells.h"

#include <cstddef>
#include <cstdint>
#include <optional>

#include "devices/core/doorbell.h"
#include "devices/virtio/virtio_device.h"
#include "loop/log.h"
#include "loop/mutex.h"

namespace skiff::devices {

QueueDoorbells::QueueDoorbells(DoorbellHub& hub, const VirtioDevice& device, const Layout& layout)
    : hub_(hub), device_(device), layout_(layout) {}

QueueDoorbells::~QueueDoorbells() {
  const loop::MutexLock lock(mutex_);
  detach_all();
}

void QueueDoorbells::set_base(std::optional<uint64_t> base) {
  const loop::MutexLock lock(mutex_);
  if (base == base_) return;
  detach_all();
  base_ = base;
  attach_all();
}

void QueueDoorbells::start(const VirtioStart& start) {
  const loop::MutexLock lock(mutex_);
  detach_all();
  wanted_.clear();
  for (size_t i = 0; i < start.queues.size(); ++i)
    if (start.queues[i].size != 0) wanted_.push_back(static_cast<QueueIndex>(i));
  attach_all();
}

void QueueDoorbells::stop() {
  const loop::MutexLock lock(mutex_);
  detach_all();
  wanted_.clear();
}

DoorbellAddress QueueDoorbells::address_of(QueueIndex queue, uint64_t base) const {
  DoorbellAddress where{
      .address = base + layout_.offset_bytes + uint64_t{queue} * layout_.stride_bytes,
      .size_bytes = layout_.size_bytes};
  if (layout_.stride_bytes == 0) where.value = queue;
  return where;
}

void QueueDoorbells::attach_all() {
  if (!base_) return;
  for (const QueueIndex queue : wanted_) {
    const DoorbellAddress where = address_of(queue, *base_);
    if (auto done = hub_.attach(where, device_.doorbell(queue)); !done) {
      SKIFF_LOG_LIMITED(kWarn, "{}: Queue {} goes without a doorbell at {:#x}: {}", device_.name(),
                        queue, where.address, done.error().message());
      continue;
    }
    attached_.push_back({queue, where});
  }
}

void QueueDoorbells::detach_all() {
  for (const Attached& one : attached_) hub_.detach(one.where, device_.doorbell(one.queue));
  attached_.clear();
}

}  // namespace skiff::devices
