// SPDX-License-Identifier: GPL-2.0-or-later
// BlkQueueMetrics: what one queue of a virtio-blk device has done so far.
//
// Thread: written on the queue's home loop only, so a plain load and store suffice; read from any.
#pragma once

#include <atomic>
#include <cstdint>

namespace skiff::devices {

class MetricCounter {
 public:
  void add(uint64_t amount) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

struct BlkQueueMetrics {
  MetricCounter reads;
  MetricCounter writes;
  MetricCounter flushes;
  MetricCounter others;  // Discards, write-zeroes, serial numbers, refusals.
  MetricCounter read_bytes;
  MetricCounter written_bytes;
  MetricCounter errors;          // Answers other than OK.
  MetricCounter ignored_errors;  // Answered OK all the same (rerror, werror).
  MetricCounter parked;          // Requests that waited for the machine to be resumed.
  MetricCounter batches;         // Submissions to the image.
};

}  // namespace skiff::devices
