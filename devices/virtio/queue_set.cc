// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/queue_set.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "devices/virtio/queue_runner.h"
#include "devices/virtio/used_publisher.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"

namespace skiff::devices {

using loop::Result;

Result<std::unique_ptr<QueueSet>> QueueSet::create(const Options& options) {
  std::unique_ptr<QueueSet> set(new QueueSet(*options.home));
  for (const uint16_t size_max : options.queue_sizes) {
    auto runner = QueueRunner::create({.memory = options.memory,
                                       .name = options.name,
                                       .index = set->count(),
                                       .size_max = size_max});
    if (!runner) return runner.error();
    set->runners_.push_back(*std::move(runner));
  }
  return set;
}

QueueSet::~QueueSet() = default;

void QueueSet::attach(VirtioTransport& transport, QueueOwner& owner) {
  transport_ = &transport;
  owner_ = &owner;
}

void QueueSet::start(const VirtioStart& start) {
  SKIFF_CHECK(transport_ != nullptr && start.queues.size() == runners_.size());
  SKIFF_CHECK(!started_.exchange(true));
  home_.loop().post([this, start] { start_here(start); });
}

void QueueSet::stop(std::function<void()> stopped) {
  if (!started_.exchange(false)) return stopped();
  home_.loop().post([this, stopped = std::move(stopped)] { stop_here(stopped); });
}

void QueueSet::post_if_started(std::function<void()> work) {
  if (started_.load()) home_.loop().post(std::move(work));
}

void QueueSet::start_here(const VirtioStart& start) {
  home_.assert_here();
  owner_->queues_started(start.features);
  const QueueRunner::Seat seat = {std::make_shared<UsedPublisher>(home_.loop(), *transport_), this};
  for (auto& runner : runners_) runner->start(start.queues[runner->index()], start.features, seat);
}

void QueueSet::stop_here(std::function<void()> stopped) {
  home_.assert_here();
  stopped_ = std::move(stopped);
  not_drained_ = count();
  for (auto& runner : runners_) runner->drain();
  owner_->queues_stopping();
}

void QueueSet::queue_drained(QueueRunner&) {
  home_.assert_here();
  // Posted, because we are inside a callback of one of the runners that this takes down.
  if (--not_drained_ == 0) home_.loop().post([this] { finish_stop(); });
}

void QueueSet::finish_stop() {
  home_.assert_here();
  for (auto& runner : runners_) runner->stop();
  owner_->queues_stopped();
  // The last thing: the device may be started again, or be gone, when this returns.
  std::exchange(stopped_, nullptr)();
}

}  // namespace skiff::devices
