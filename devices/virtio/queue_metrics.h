// SPDX-License-Identifier: GPL-2.0-or-later
// QueueMetrics: what a virtqueue at work has done so far, and where its requests spent their time.
//
// Thread: written by the queue's home only, so a plain load and store suffice and nothing on the
// path is shared; read from any. Ownership: part of a QueueRunner.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
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

// The way of a request through the VMM, from one point to the next.
enum class QueueStage : uint8_t {
  kDoorbellToPop,    // From our knowing of the kick to the first chain's being taken.
  kPopToSubmit,      // A batch is read, checked and translated.
  kSubmitToDevice,   // The channel takes the batch.
  kDeviceToReap,     // The device, or the kernel on its behalf, does the work.
  kReapToUsed,       // From the first completion of a batch to the used ring's showing it.
  kUsedToInterrupt,  // The interrupt is raised.
};
inline constexpr size_t kQueueStages = 6;

constexpr const char* queue_stage_name(QueueStage stage) {
  constexpr std::array<const char*, kQueueStages> kNames = {"doorbell", "pop",  "submit",
                                                            "device",   "reap", "interrupt"};
  return kNames[static_cast<size_t>(stage)];
}

// Bucket b counts times of less than 2^b ns (and not less than 2^(b-1)); the last one all others.
inline constexpr size_t kStageBuckets = 40;
using StageCounts = std::array<uint64_t, kStageBuckets>;

class StageHistogram {
 public:
  void record(int64_t time_ns, uint64_t times) {
    const auto width = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(time_ns, 0)));
    counts_[std::min<size_t>(static_cast<size_t>(width), kStageBuckets - 1)].add(times);
  }
  StageCounts counts() const {
    StageCounts counts{};
    for (size_t i = 0; i < kStageBuckets; ++i) counts[i] = counts_[i].value();
    return counts;
  }

 private:
  std::array<MetricCounter, kStageBuckets> counts_;
};

struct QueueMetrics {
  MetricCounter kicks;       // That the queue was served for.
  MetricCounter interrupts;  // That it asked its transport for.
  std::array<StageHistogram, kQueueStages> stages;

  // `times`: for how many it stands.
  void record(QueueStage stage, int64_t time_ns, uint64_t times = 1) {
    stages[static_cast<size_t>(stage)].record(time_ns, times);
  }
};

}  // namespace skiff::devices
