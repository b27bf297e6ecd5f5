// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/used_publisher.h"

#include <vector>

#include "devices/virtio/queue_runner.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/event_loop.h"

namespace skiff::devices {

UsedPublisher::UsedPublisher(loop::EventLoop& home, VirtioTransport& transport)
    : home_(home),
      transport_(transport),
      run_bh_(home, loop::Priority::kCompletion, [this] { run(); }) {}

void UsedPublisher::join() {
  ++members_;
  due_.reserve(members_);
  running_.reserve(members_);
  interrupts_.reserve(members_);
}

void UsedPublisher::leave(QueueRunner& runner) {
  SKIFF_CHECK(running_.empty());
  --members_;
  std::erase(due_, &runner);
}

void UsedPublisher::schedule(QueueRunner& runner) {
  due_.push_back(&runner);
  run_bh_.schedule();
}

void UsedPublisher::run() {
  running_.swap(due_);
  for (QueueRunner* runner : running_) {
    runner->active_->publishing = false;
    if (runner->publish_used()) interrupts_.push_back(runner->index());
  }
  if (!interrupts_.empty()) transport_.interrupt_queues(interrupts_);
  interrupts_.clear();
  for (QueueRunner* runner : running_) runner->published();
  running_.clear();
}

}  // namespace skiff::devices
