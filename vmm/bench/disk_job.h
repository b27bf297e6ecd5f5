// SPDX-License-Identifier: GPL-2.0-or-later
// DiskJob: keeps a number of requests under way on one channel, and notes how long each takes.
//
// Thread: the channel's home loop, but for completed(). Ownership: owns channel and buffers; the
// image outlives it. It is destroyed when it has ended.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "block/adaptive/adaptive_counters.h"
#include "block/aligned_buffer.h"
#include "block/block_channel.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/latency_histogram.h"
#include "vmm/bench/rate_pacer.h"
#include "vmm/bench/request_source.h"

namespace skiff::vmm {

// What a job has seen between `measure_from_ns` and its end.
struct JobRecord {
  loop::LatencyHistogram latency;
  uint64_t reads = 0;
  uint64_t writes = 0;
  int64_t end_ns = 0;   // When its last request ended.
  uint64_t missed = 0;  // With a rate: requests that were due and could not be sent in time.
  // The first that failed ended the job.
  struct Failure {
    block::BlockOp op;
    uint64_t offset_bytes;
    int os_error;
  };
  std::optional<Failure> failure;
};

class DiskJob {
 public:
  struct Options {
    RequestSource source;
    uint64_t block_bytes = 4096;
    uint32_t depth = 1;
    // One request in so many nanoseconds. 0: as soon as another has ended.
    uint64_t rate = 0;
    uint64_t rate_period_ns = 1'000'000'000;
  };
  // On the loop's clock. What starts earlier warms up and does not count.
  struct Span {
    int64_t measure_from_ns = 0;
    int64_t until_ns = 0;
  };

  DiskJob(loop::EventLoop& loop, std::unique_ptr<block::BlockChannel> channel, Options options);
  ~DiskJob();
  DiskJob(const DiskJob&) = delete;
  DiskJob& operator=(const DiskJob&) = delete;

  // `on_end` runs on the loop when the span is over or stop() was called, and nothing is under way
  // any more.
  void start(Span span, std::function<void()> on_end);
  void stop();  // Does nothing once it has ended.
  const JobRecord& record() const { return record_; }
  // Adds what the disk's engine has chosen, if it chooses. Any thread.
  void add_choices(block::AdaptiveTotals& totals) const;
  // Any thread: requests so far, those of the warm-up included.
  uint64_t completed() const { return completed_.load(std::memory_order_relaxed); }

 private:
  struct Slot {
    DiskJob* job = nullptr;
    int64_t start_ns = 0;
    iovec memory = {};
    block::BlockRequest request;
  };

  static void on_done(block::BlockRequest& request, int32_t result);
  void finish(Slot& slot, int32_t result);
  void submit_ready(int64_t now_ns);
  void prepare(Slot& slot, int64_t start_ns);
  void end_if_idle();

  const loop::Home home_;
  loop::EventLoop& loop_;
  const std::unique_ptr<block::BlockChannel> channel_;
  Options options_;
  Span span_;
  std::function<void()> on_end_;
  std::optional<RatePacer> pacer_;
  block::AlignedBuffer buffers_;
  std::vector<Slot> slots_;
  std::vector<Slot*> idle_;
  std::vector<block::BlockRequest*> batch_;
  uint32_t in_flight_ = 0;
  bool running_ = false;
  bool stopping_ = false;
  bool ready_scheduled_ = false;  // Spares the bottom half's own atomic on each completion.
  JobRecord record_;
  loop::BottomHalf ready_bh_;
  loop::Timer pace_timer_;
  alignas(64) std::atomic<uint64_t> completed_{0};
};

}  // namespace skiff::vmm
