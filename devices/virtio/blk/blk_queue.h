// SPDX-License-Identifier: GPL-2.0-or-later
// BlkQueue: the requests of one virtio-blk queue, from descriptor chain to channel and back.
//
// A request that fails where the policy says "stop" waits in its slot until retry().
//
// All requests have their slot from the start, and a slot holds everything down to the SQE's
// bookkeeping, so a request allocates nothing. Thread: the home loop, but for construction and
// metrics(). Ownership: borrows image and shared settings; owns its channel between start() and
// close().
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "block/error_policy.h"
#include "devices/virtio/blk/blk_command.h"
#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/queue_runner.h"
#include "loop/home.h"
#include "loop/latency_histogram.h"

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
  std::atomic<bool> write_back{true};  // The driver's wish (5.2.4, `writeback`).
  block::ErrorPolicies errors;
  // Of the first request that was parked since the last retry(). On a queue's home loop.
  std::function<void(const BlkStop&)> stopped;
  std::atomic<bool> stop_told{false};
};

class BlkQueue final : public block::DrainParty {
 public:
  BlkQueue(loop::EventLoop& home, uint16_t size_max, BlkShared& shared);
  BlkQueue(const BlkQueue&) = delete;
  BlkQueue& operator=(const BlkQueue&) = delete;

  // Opens the channel. When that fails it says so, and the first request ends in need_reset().
  void start(uint64_t features);
  // The queue takes nothing any more: what is parked, or would be, fails.
  void stopping();
  // Nothing is in flight. Not from within a completion.
  void close();

  // The guest rang: takes at most a queue's length of requests and submits them as one batch.
  QueueHandler::Served serve(QueueRunner& runner);

  // Submits again what is parked; after a drain, if one is on.
  void retry();

  // DrainParty. What is parked stays so: it is not with the image.
  void quiesce(const block::DrainTicket& ticket) override;
  void resume() override;

  const BlkQueueMetrics& metrics() const { return metrics_; }
  // From submission to the image's answer: a copy, which may leave the home. Thread: home loop.
  loop::LatencyHistogram latency() const {
    home_.assert_here();
    return latency_;
  }

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
    block::BlockRequest io;
  };

  static void on_io_done(block::BlockRequest& io, int32_t result);

  void submit_batch() SKIFF_REQUIRES(home_);
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

  loop::Home home_;
  BlkShared& shared_;
  std::vector<Slot> slots_;
  Slot* free_ SKIFF_GUARDED_BY(home_) = nullptr;
  std::vector<block::BlockRequest*> batch_ SKIFF_GUARDED_BY(home_);
  std::unique_ptr<block::BlockChannel> channel_ SKIFF_GUARDED_BY(home_);
  BlkRules rules_ SKIFF_GUARDED_BY(home_);
  bool can_flush_ SKIFF_GUARDED_BY(home_) = false;
  uint32_t in_flight_ SKIFF_GUARDED_BY(home_) = 0;
  // While a drain is on: what to answer it with, and what to do after it.
  std::optional<block::DrainTicket> drain_ SKIFF_GUARDED_BY(home_);
  QueueRunner* blocked_ SKIFF_GUARDED_BY(home_) = nullptr;
  bool retry_asked_ SKIFF_GUARDED_BY(home_) = false;
  bool stopping_ SKIFF_GUARDED_BY(home_) = false;
  Slot* parked_first_ SKIFF_GUARDED_BY(home_) = nullptr;  // In the order in which they failed.
  Slot* parked_last_ SKIFF_GUARDED_BY(home_) = nullptr;
  BlkQueueMetrics metrics_;
  loop::LatencyHistogram latency_ SKIFF_GUARDED_BY(home_);
};

}  // namespace skiff::devices
