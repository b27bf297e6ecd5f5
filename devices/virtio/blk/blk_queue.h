// SPDX-License-Identifier: GPL-2.0-or-later
// BlkQueue: the requests of one virtio-blk queue, from descriptor chain to channel and back.
//
// A request that fails where the policy says "stop" waits in its slot until retry(). All requests
// have their slot from the start, and a slot holds everything down to the SQE's bookkeeping, so a
// request allocates nothing.
//
// Thread: the home loop, which is the one of the latest enter(); construction and metrics()
// anywhere. Ownership: borrows image and shared settings; owns its channel while it has a home.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "block/block_channel.h"
#include "block/error_policy.h"
#include "devices/virtio/blk/blk_command.h"
#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/queue_runner.h"
#include "devices/virtio/timing_budget.h"
#include "loop/home.h"

namespace skiff::devices {

// A request that waits for the machine to be resumed.
struct BlkStop {
  block::BlockOp op = block::BlockOp::kRead;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  int os_error = 0;
};

// What all queues of one disk share. Thread: the flags from any, the rest is constant.
struct BlkShared {
  block::BlockBackend* image = nullptr;
  std::array<std::byte, kBlkIdBytes> serial = {};
  bool timed = true;                   // False only to find out what measuring costs.
  bool may_unmap = true;               // Write-zeroes may give room in the image back.
  std::atomic<bool> write_back{true};  // The driver's wish (5.2.4, `writeback`).
  block::ErrorPolicies errors;
  // Of the first request that was parked since the last retry(). On a queue's home loop.
  std::function<void(const BlkStop&)> stopped;
  std::atomic<bool> stop_told{false};
  // Called once with the first request after `tell_active` was set. On a queue's home loop.
  std::function<void()> active;
  std::atomic<bool> tell_active{false};
};

class BlkQueue {
 public:
  BlkQueue(const QueueHome& home, uint16_t size_max, BlkShared& shared);
  BlkQueue(const BlkQueue&) = delete;
  BlkQueue& operator=(const BlkQueue&) = delete;

  // Requests go to this channel, made on this loop, from now on. Null: the image gave none, and the
  // first request ends in need_reset().
  void enter(const QueueHome& home, std::unique_ptr<block::BlockChannel> channel);
  // After enter(): the driver begins to use the queue, with what it agreed to. Not paused.
  void start(uint64_t features);
  // The home stays, the way there is another.
  void set_mode(SubmitMode mode);
  // Closes the channel; what is parked stays so. Nothing is in flight, and not from within a
  // completion.
  void leave();
  // The queue takes nothing any more: what is parked, or would be, fails.
  void stopping();

  // The guest rang: takes at most a queue's length of requests and submits them as one batch.
  QueueHandler::Served serve(QueueRunner& runner);

  // Submits again what is parked; when the queue goes on, if it is paused.
  void retry();

  // Takes nothing new until as many calls of go_on(), which looks for what came meanwhile.
  void pause();
  void go_on();
  // Calls back in a later turn of the present home, when nothing is with the image; hurries.
  void when_idle(std::function<void()> idle);

  const BlkQueueMetrics& metrics() const { return metrics_; }

 private:
  struct Slot {
    BlkQueue* queue = nullptr;
    Slot* next_free = nullptr;
    QueueRunner* runner = nullptr;
    DescriptorChain chain;
    std::vector<iovec> scratch;
    std::byte* status = nullptr;
    uint64_t data_bytes = 0;  // That the guest gets to read.
    int64_t started_ns = 0;
    uint32_t weight = 0;  // For how many its times stand; 0: they are not taken.
    block::BlockRequest io;
  };

  static void on_io_done(block::BlockRequest& io, int32_t result);

  QueueHandler::Served pop_batch(QueueRunner& runner) SKIFF_REQUIRES(home_);
  void submit_batch(int64_t now_ns, uint32_t weight) SKIFF_REQUIRES(home_);
  Slot& take_slot() SKIFF_REQUIRES(home_);
  // False when the chain has no place for an answer.
  bool start_request(Slot& slot) SKIFF_REQUIRES(home_);
  void start_io(Slot& slot, const BlkCommand& command) SKIFF_REQUIRES(home_);
  void send_serial(Slot& slot, const BlkCommand& command) SKIFF_REQUIRES(home_);
  void count(const BlkCommand& command) SKIFF_REQUIRES(home_);
  void fail(Slot& slot, int32_t result) SKIFF_REQUIRES(home_);
  void park(Slot& slot, int32_t result) SKIFF_REQUIRES(home_);
  Slot* take_parked() SKIFF_REQUIRES(home_);
  void finish(Slot& slot, BlkStatus status) SKIFF_REQUIRES(home_);
  void release(Slot& slot, uint32_t written_bytes) SKIFF_REQUIRES(home_);
  void tell_idle() SKIFF_REQUIRES(home_);

  loop::Home home_;
  SubmitMode mode_ SKIFF_GUARDED_BY(home_);
  BlkShared& shared_;
  std::vector<Slot> slots_;
  Slot* free_ SKIFF_GUARDED_BY(home_) = nullptr;
  std::vector<block::BlockRequest*> batch_ SKIFF_GUARDED_BY(home_);
  std::unique_ptr<block::BlockChannel> channel_ SKIFF_GUARDED_BY(home_);
  BlkRules rules_ SKIFF_GUARDED_BY(home_);
  bool can_flush_ SKIFF_GUARDED_BY(home_) = false;
  uint32_t in_flight_ SKIFF_GUARDED_BY(home_) = 0;
  std::vector<std::function<void()>> idle_waiters_ SKIFF_GUARDED_BY(home_);
  uint32_t pauses_ SKIFF_GUARDED_BY(home_) = 0;
  QueueRunner* blocked_ SKIFF_GUARDED_BY(home_) = nullptr;  // Asked for service in a pause.
  bool retry_asked_ SKIFF_GUARDED_BY(home_) = false;
  bool stopping_ SKIFF_GUARDED_BY(home_) = false;
  Slot* parked_first_ SKIFF_GUARDED_BY(home_) = nullptr;  // In the order in which they failed.
  Slot* parked_last_ SKIFF_GUARDED_BY(home_) = nullptr;
  TimingBudget timing_ SKIFF_GUARDED_BY(home_);
  BlkQueueMetrics metrics_;
};

}  // namespace skiff::devices
