// SPDX-License-Identifier: GPL-2.0-or-later
// QueueRunner: one virtqueue at work on its home loop. Doorbell in, a bounded turn of service, used
// ring and interrupt out.
//
// It keeps the order that loses no kick: notifications off, serve, notifications on, look once
// more. A broken ring ends in need_reset() and in silence until the next start.
//
// Thread: create(), index(), size_max() and doorbell() anywhere; the rest on the home loop.
// Ownership: belongs to a QueueSet (or to a device with queues on several loops); borrows loop,
// memory, transport and handler.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "devices/core/guest_memory.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/home.h"
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
  // A draining queue has nothing in flight any more. Called in a turn of its own.
  virtual void queue_drained(QueueRunner& runner) = 0;

 protected:
  ~QueueHandler() = default;
};

class QueueRunner {
 public:
  struct Options {
    loop::EventLoop* home = nullptr;
    const GuestMemory* memory = nullptr;
    std::string name;  // Of the device, for messages.
    QueueIndex index = 0;
    uint16_t size_max = 256;
  };

  static loop::Result<std::unique_ptr<QueueRunner>> create(const Options& options);

  QueueIndex index() const { return options_.index; }
  uint16_t size_max() const { return options_.size_max; }
  const loop::EventNotifier& doorbell() const { return doorbell_; }

  // Begins to serve. A layout that cannot be used ends in need_reset(); one of size 0 is a queue
  // that the driver leaves alone.
  void start(const QueueLayout& layout, uint64_t features, VirtioTransport& transport,
             QueueHandler& handler);
  // No more chains are taken; queue_drained() follows when those in flight have been completed.
  void drain();
  // Forgets the queue. Not from within a callback of this runner. Harmless when not started.
  void stop();

  bool is_running() const { return active_.has_value(); }
  VirtQueue& queue() { return queue_; }

  // Serves in the next turn, kicked or not.
  void schedule();
  // Finishes a chain in flight; the guest sees it, with at most one interrupt, in the next turn.
  void complete(uint16_t head, uint32_t written_bytes);

 private:
  // Exists between start() and stop(), so that an idle runner may be destroyed on any thread.
  struct Active {
    Active(QueueRunner& runner, VirtioTransport& transport, QueueHandler& handler);
    VirtioTransport& transport;
    QueueHandler& handler;
    bool draining = false;
    bool drain_reported = false;
    bool failed = false;
    bool serving = false;  // serve() is on the stack: what it completes is shown right after it.
    loop::BottomHalf serve_bh;
    loop::BottomHalf publish_bh;
    loop::NotifierWatch doorbell_watch;
  };

  QueueRunner(const Options& options, loop::EventNotifier doorbell)
      : options_(options),
        home_(*options.home),
        doorbell_(std::move(doorbell)),
        queue_(*options.memory) {}
  void run();
  void publish();
  void fail(std::string_view reason);

  const Options options_;
  const loop::Home home_;
  const loop::EventNotifier doorbell_;
  VirtQueue queue_;
  std::optional<Active> active_;
};

}  // namespace skiff::devices
