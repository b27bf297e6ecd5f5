// SPDX-License-Identifier: GPL-2.0-or-later
// QueueSet: all queues of a virtio device that live on one home loop, with the start and stop that
// VirtioDevice asks for.
//
// Thread: create(), count(), runner facts, attach(), start() and stop() as VirtioDevice says, so
// from any; runners are served on the home loop. The loop must go on turning until stop() called
// back. Ownership: owns the runners; borrows loop, memory, transport and owner.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/queue_runner.h"
#include "loop/home.h"

namespace skiff::devices {

// The device behind a set. Thread: the home loop.
class QueueOwner {
 public:
  // Before the first serve() of a run.
  virtual void queues_started(uint64_t features) = 0;
  // The queues take nothing any more. The owner completes what it holds back by itself; stop()
  // calls back when nothing is in flight.
  virtual void queues_stopping() = 0;
  // Nothing is in flight and the queues are taken down; the last call of a run.
  virtual void queues_stopped() {}
  virtual QueueHandler::Served serve(QueueRunner& runner) = 0;

 protected:
  ~QueueOwner() = default;
};

class QueueSet final : private QueueHandler {
 public:
  struct Options {
    loop::EventLoop* home = nullptr;
    const GuestMemory* memory = nullptr;
    std::string name;                   // Of the device, for messages.
    std::vector<uint16_t> queue_sizes;  // The largest size of each queue.
  };

  static loop::Result<std::unique_ptr<QueueSet>> create(const Options& options);
  ~QueueSet();  // Stopped, or on the home loop.

  uint16_t count() const { return static_cast<uint16_t>(runners_.size()); }
  QueueRunner& runner(QueueIndex index) { return *runners_[index]; }
  const QueueRunner& runner(QueueIndex index) const { return *runners_[index]; }

  // Once, before the first start(). The owner may be the one that owns this set.
  void attach(VirtioTransport& transport, QueueOwner& owner);
  void start(const VirtioStart& start);
  void stop(std::function<void()> stopped);
  // Runs `work` on the home loop, unless the queues are stopped. Never at the same time as stop(),
  // which therefore comes later there as well.
  void post_if_started(std::function<void()> work);

 private:
  explicit QueueSet(loop::EventLoop& home) : home_(home) {}
  Served serve(QueueRunner& runner) override { return owner_->serve(runner); }
  void queue_drained(QueueRunner& runner) override;
  void start_here(const VirtioStart& start);
  void stop_here(std::function<void()> stopped);
  void finish_stop();

  const loop::Home home_;
  std::vector<std::unique_ptr<QueueRunner>> runners_;
  VirtioTransport* transport_ = nullptr;
  QueueOwner* owner_ = nullptr;
  std::atomic<bool> started_{false};
  uint16_t not_drained_ SKIFF_GUARDED_BY(home_) = 0;
  std::function<void()> stopped_ SKIFF_GUARDED_BY(home_);
};

}  // namespace skiff::devices
