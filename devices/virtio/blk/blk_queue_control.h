// SPDX-License-Identifier: GPL-2.0-or-later
// BlkQueueControl: the life of one virtio-blk queue: start, stop, drain, move to another home.
//
// Whoever wants something of a queue leaves a step; the steps are taken one after the other, in the
// order in which they came, on the queue's home of the time, and a step that has to wait for
// requests in flight keeps the others waiting. So a stop that comes during a move finds the queue
// at its new home, and a move during a drain finds nothing in flight. A queue that is not started
// has no thread: then steps are taken on the caller's.
//
// Thread: any, where nothing else is said. Loops that were a home of the queue outlive it.
// Ownership: owns runner and requests; borrows all that Options names. When it goes, the queue is
// stopped and nobody calls any more.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/blk/blk_queue.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/queue_runner.h"
#include "devices/virtio/used_publisher.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"
#include "loop/result.h"

namespace skiff::devices {

// Where the queues of a device on one loop publish. Thread: any.
class PublisherSource {
 public:
  virtual std::shared_ptr<UsedPublisher> publisher_on(loop::EventLoop& loop) = 0;

 protected:
  ~PublisherSource() = default;
};

class BlkQueueControl final : public block::DrainParty, private QueueHandler {
 public:
  struct Options {
    QueueRunner::Options runner;
    QueueHome home;
    BlkShared* shared = nullptr;
    PublisherSource* publishers = nullptr;
  };

  static loop::Result<std::unique_ptr<BlkQueueControl>> create(const Options& options);
  ~BlkQueueControl();

  uint16_t size_max() const { return runner_->size_max(); }
  const loop::EventNotifier& doorbell() const { return runner_->doorbell(); }

  // The queue is stopped. The transport stays the same over all starts.
  void start(const QueueLayout& layout, uint64_t features, VirtioTransport& transport);
  // Completes what is in flight, fails what is parked, forgets the ring. `stopped` runs on an
  // arbitrary thread, inside the call when the queue was idle.
  void stop(std::function<void()> stopped);
  // Completes what is in flight and goes on at another home with the same ring; what is parked goes
  // with it. Stays where it is, and says so in the log, when the image gives no channel there.
  // `moved` runs on an arbitrary thread.
  void move(const QueueHome& home, std::function<void()> moved);
  // Submits again what is parked.
  void retry();
  // A kick that ended KVM_RUN. Thread: vCPU threads, several at once.
  void kick();

  // DrainParty; on any thread. What is parked stays so: it is not with the image.
  void quiesce(const block::DrainTicket& ticket) override;
  void resume() override;

  BlkQueueStats stats() const;
  // Where it is, or will be at its next start.
  QueueHome home() const;

 private:
  // On the thread that may touch the queue. True when it is taken; else it sees to it that go_on()
  // is called when it is. What callers wait for goes to finished_.
  using Step = std::function<bool()>;
  // A kick that another thread took, on its way to the home.
  struct Kick : loop::Message {
    BlkQueueControl* control = nullptr;
    std::atomic<bool> sent{false};
    int64_t since_ns = 0;  // Of the sender until it is sent, then of the home.
  };
  struct Move {
    QueueHome to;
    std::function<void()> moved;
    std::unique_ptr<block::BlockChannel> channel;  // At the new home.
  };

  BlkQueueControl(const Options& options, std::unique_ptr<QueueRunner> runner);

  void enqueue(Step step, bool opens = false);
  // Takes steps as long as the thread is the right one. `here`: the loop of which the caller is a
  // callback; null: unknown.
  void go_on(const loop::EventLoop* here);
  void post_home(std::function<void()> callback);

  void start_here(const QueueLayout& layout, uint64_t features);
  void finish_stop();
  bool begin_move(const std::shared_ptr<Move>& move);
  void leave_for(const std::shared_ptr<Move>& move);
  void arrive(const std::shared_ptr<Move>& move);
  void change_mode(SubmitMode mode);

  std::unique_ptr<block::BlockChannel> open_channel(loop::EventLoop& loop);
  void begin_mode();
  void end_mode();
  bool kicks_are_under_way() const;
  void send_kick();
  void set_home(const QueueHome& home);

  // QueueHandler, on the home.
  Served serve(QueueRunner& runner) override { return queue_.serve(runner); }
  void queue_drained(QueueRunner& runner) override;

  BlkShared& shared_;
  PublisherSource& publishers_;
  const std::unique_ptr<QueueRunner> runner_;
  BlkQueue queue_;

  mutable loop::Mutex mutex_;
  struct Entry {
    Step step;
    bool opens = false;  // Needs the home although the queue is not started.
  };
  std::deque<Entry> steps_ SKIFF_GUARDED_BY(mutex_);
  bool busy_ SKIFF_GUARDED_BY(mutex_) = false;  // A step is being taken, or about to be.
  QueueHome home_ SKIFF_GUARDED_BY(mutex_);
  bool is_started_ SKIFF_GUARDED_BY(mutex_) = false;

  // Of the step that is being taken, on whichever thread.
  VirtioTransport* transport_ = nullptr;
  std::vector<std::function<void()>> finished_;  // Called when no step is left.
  bool is_drained_ = false;
  DoorbellPath path_ = DoorbellPath::kKernel;

  // Whose thread serves kicks itself; null: nobody, they go through the doorbell.
  std::atomic<loop::EventLoop*> kick_home_{nullptr};
  std::atomic<uint32_t> kickers_{0};  // Threads that are about to send a Kick.
  Kick kick_;
  std::atomic<uint64_t> foreign_kicks_{0};
  std::atomic<uint64_t> foreign_kicker_{0};
  std::atomic<uint64_t> moves_{0};
};

}  // namespace skiff::devices
