// SPDX-License-Identifier: GPL-2.0-or-later
// QueueRunner: one virtqueue at work on its home loop. Doorbell in, a bounded turn of service, used
// ring and interrupt out.
//
// It keeps the order that loses no kick: notifications off, serve, notifications on, look once
// more. A broken ring ends in need_reset() and in silence until the next start. It may leave its
// home and arrive at another one, with the ring as it is. A home that polls looks at the ring
// before it sleeps, with notifications off meanwhile.
//
// Thread: create(), index(), size_max(), doorbell() and metrics() anywhere; the rest on the home
// loop, which is the one of start() or of the latest arrive(). Ownership: belongs to a QueueSet or
// to a device with queues on several loops; borrows loop, memory, transport and handler.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "devices/core/guest_memory.h"
#include "devices/virtio/queue_metrics.h"
#include "devices/virtio/used_publisher.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"

namespace skiff::devices {

class QueueRunner;

// What a device does with a queue's chains. Thread: the queue's home loop.
class QueueHandler {
 public:
  enum class Served : uint8_t {
    kAll,      // Nothing is left: the guest shall kick again.
    kMore,     // The budget of this turn is spent: call again in the next one.
    kBlocked,  // It waits for something else than the guest: silent until schedule().
    kBroken,   // The guest broke the device's own rules: need_reset().
  };
  // Pops at most a bounded number of chains. The runner has turned notifications off and shows the
  // guest afterwards what was pushed meanwhile.
  virtual Served serve(QueueRunner& runner) = 0;
  // A draining queue has nothing in flight any more. The runner is neither stopped nor moved inside
  // this call.
  virtual void queue_drained(QueueRunner& runner) = 0;

 protected:
  ~QueueHandler() = default;
};

class QueueRunner final : private loop::Poller {
 public:
  struct Options {
    const GuestMemory* memory = nullptr;
    std::string name;  // Of the device, for messages.
    QueueIndex index = 0;
    uint16_t size_max = 256;
  };
  // A place to be at work.
  struct Seat {
    std::shared_ptr<UsedPublisher> publisher;  // Its loop is the home.
    QueueHandler* handler = nullptr;
  };
  enum class Polling : uint8_t { kOff, kOn };

  static loop::Result<std::unique_ptr<QueueRunner>> create(const Options& options);

  QueueIndex index() const { return options_.index; }
  uint16_t size_max() const { return options_.size_max; }
  const loop::EventNotifier& doorbell() const { return doorbell_; }
  const QueueMetrics& metrics() const { return metrics_; }

  // Begins to serve. A layout that cannot be used ends in need_reset(); one of size 0 is a queue
  // that the driver leaves alone.
  void start(const QueueLayout& layout, uint64_t features, Seat seat);
  // No more chains are taken; queue_drained() follows when those in flight have been completed.
  void drain();
  // Forgets the queue. Not from within a callback of this runner. Harmless when not started.
  void stop();

  // Shows the guest what is finished and leaves the home; indices and chains in flight stay as they
  // are. Not while it drains, not from within a callback of this runner.
  void leave();
  // Goes on where it left off, on another thread if need be, looking at the ring first.
  void arrive(Seat seat);

  // Whether the home looks at the ring before it sleeps, as long as its loop polls at all. Off
  // after start() and arrive().
  void set_polling(Polling polling);

  bool is_running() const { return active_.has_value(); }
  VirtQueue& queue() { return queue_; }

  // Serves in the next turn, kicked or not.
  void schedule();
  // A kick that did not come through the doorbell: serves at once, also outside of a turn, or in
  // the next turn when it is being served. `since_ns`: when another thread took it; 0: none did.
  void kick(int64_t since_ns = 0);
  // Finishes a chain in flight; the guest sees it, with at most one interrupt, in the next turn.
  void complete(uint16_t head, uint32_t written_bytes);
  // For the metrics: a batch that stands for so many has had its first completion.
  void note_reaped(int64_t submitted_ns, int64_t now_ns, uint32_t weight) {
    if (reaped_weight_ != 0) return;
    reaped_weight_ = weight;
    reaped_ns_ = now_ns;
    metrics_.record(QueueStage::kDeviceToReap, now_ns - submitted_ns, weight);
  }
  QueueMetrics& metrics() { return metrics_; }

 private:
  friend class UsedPublisher;
  // Exists while it has a home, so that an idle runner may be destroyed on any thread.
  struct Active {
    Active(QueueRunner& runner, Seat its_seat);
    ~Active();
    QueueRunner& runner;
    Seat seat;
    bool draining = false;
    bool drain_reported = false;
    bool serving = false;     // serve() is on the stack: what it completes is shown right after it.
    bool publishing = false;  // The publisher has it on its list.
    bool polled = false;
    bool watched = false;  // Nothing was left at the last service: what comes is to be served.
    loop::BottomHalf serve_bh;
    loop::NotifierWatch doorbell_watch;
  };

  QueueRunner(const Options& options, loop::EventNotifier doorbell)
      : options_(options), doorbell_(std::move(doorbell)), queue_(*options.memory) {}
  void assert_here() const;
  int64_t now_ns() const { return active_->seat.publisher->home().now_ns(); }
  void run();
  void schedule_publish();
  void publish_now();
  void fail(std::string_view reason);
  bool rearm();

  // Poller.
  bool is_ready() const override;
  void begin_polling() override;
  bool end_polling() override;

  // For the publisher: shows what is finished, true if the driver wants an interrupt for it; then,
  // when that has been sent, the rest.
  bool publish_used();
  void published();

  const Options options_;
  const loop::EventNotifier doorbell_;
  const loop::EventNotifier* listens_to_ = &doorbell_;  // Of this start.
  VirtQueue queue_;
  bool failed_ = false;
  // Of the first timed completion that is not published yet; no weight: there is none.
  uint32_t reaped_weight_ = 0;
  int64_t reaped_ns_ = 0;
  // Of a timed publication whose interrupt is being sent; no weight: there is none.
  uint32_t published_weight_ = 0;
  int64_t published_ns_ = 0;
  QueueMetrics metrics_;
  std::optional<Active> active_;
};

}  // namespace skiff::devices
