// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/transport/queue_doorbells.h"

#include <cstdint>
#include <optional>

#include "devices/core/doorbell.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/mutex.h"

namespace skiff::devices {

QueueDoorbells::QueueDoorbells(DoorbellHub& hub, const VirtioDevice& device, const Layout& layout)
    : hub_(hub), device_(device), layout_(layout) {
  const loop::MutexLock lock(mutex_);
  queues_.resize(device.queue_count());
}

QueueDoorbells::~QueueDoorbells() { stop(); }

void QueueDoorbells::set_base(std::optional<uint64_t> base) {
  const loop::MutexLock lock(mutex_);
  base_ = base;
  update_all();
}

void QueueDoorbells::start(const VirtioStart& start) {
  const loop::MutexLock lock(mutex_);
  SKIFF_CHECK(start.queues.size() == queues_.size());
  for (size_t i = 0; i < queues_.size(); ++i) queues_[i].is_used = start.queues[i].size != 0;
  update_all();
}

void QueueDoorbells::stop() {
  const loop::MutexLock lock(mutex_);
  for (Queue& queue : queues_) queue.is_used = false;
  update_all();
}

void QueueDoorbells::start_queue(QueueIndex queue) { set_used(queue, true); }

void QueueDoorbells::stop_queue(QueueIndex queue) { set_used(queue, false); }

void QueueDoorbells::set_used(QueueIndex queue, bool used) {
  const loop::MutexLock lock(mutex_);
  queues_[queue].is_used = used;
  update(queue);
}

void QueueDoorbells::set_path(QueueIndex queue, DoorbellPath path) {
  const loop::MutexLock lock(mutex_);
  queues_[queue].path = path;
  update(queue);
}

DoorbellAddress QueueDoorbells::address_of(QueueIndex queue, uint64_t base) const {
  DoorbellAddress where{
      .address = base + layout_.offset_bytes + uint64_t{queue} * layout_.stride_bytes,
      .size_bytes = layout_.size_bytes};
  if (layout_.stride_bytes == 0) where.value = queue;
  return where;
}

void QueueDoorbells::update_all() {
  // All are taken off before one is put up: at their new base they may be where others were.
  for (size_t i = 0; i < queues_.size(); ++i) detach_if_unwanted(static_cast<QueueIndex>(i));
  for (size_t i = 0; i < queues_.size(); ++i) update(static_cast<QueueIndex>(i));
}

// Brings the doorbell of a queue to what is wanted.
void QueueDoorbells::update(QueueIndex index) {
  Queue& queue = queues_[index];
  detach_if_unwanted(index);
  if (queue.attached || !wants(queue)) return;
  const DoorbellAddress where = address_of(index, *base_);
  if (auto done = hub_.attach(where, device_.doorbell(index)); !done) {
    SKIFF_LOG_LIMITED(kWarn, "{}: Queue {} goes without a doorbell at {:#x}: {}", device_.name(),
                      index, where.address, done.error().message());
    return;
  }
  queue.attached = where;
}

bool QueueDoorbells::wants(const Queue& queue) const {
  return base_ && queue.is_used && queue.path == DoorbellPath::kKernel;
}

void QueueDoorbells::detach_if_unwanted(QueueIndex index) {
  Queue& queue = queues_[index];
  if (!queue.attached) return;
  if (wants(queue) && queue.attached->address == address_of(index, *base_).address) return;
  hub_.detach(*queue.attached, device_.doorbell(index));
  queue.attached.reset();
}

}  // namespace skiff::devices
