// SPDX-License-Identifier: GPL-2.0-or-later
// BlkQueueMetrics: what one queue of a virtio-blk device has done so far, and BlkQueueStats, a copy
// of that and of the queue's other counters.
//
// Thread: written by the queue's home only, so a plain load and store suffice; read from any.
// Ownership: part of a BlkQueue; the copy is a value, some 40 KiB large.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "block/block_channel.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/queue_metrics.h"
#include "loop/latency_histogram.h"
#include "loop/live_histogram.h"

namespace skiff::devices {

// Requests whose times are told apart.
enum class BlkOpKind : uint8_t { kRead, kWrite, kFlush, kOther };
inline constexpr size_t kBlkOpKinds = 4;

constexpr BlkOpKind blk_op_kind(block::BlockOp op) {
  switch (op) {
    case block::BlockOp::kRead:
      return BlkOpKind::kRead;
    case block::BlockOp::kWrite:
      return BlkOpKind::kWrite;
    case block::BlockOp::kFlush:
      return BlkOpKind::kFlush;
    case block::BlockOp::kDiscard:
    case block::BlockOp::kWriteZeroes:
    case block::BlockOp::kStatus:
      break;
  }
  return BlkOpKind::kOther;
}

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
  std::array<MetricCounter, kSubmitModes> completions;  // Of the image, by the mode of their home.
  // From submission to the image's answer.
  std::array<loop::LiveHistogram, kBlkOpKinds> latency;
};

struct BlkQueueStats {
  SubmitMode mode = SubmitMode::kIoThread;
  uint64_t requests = 0;  // The sum of the next four.
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t flushes = 0;
  uint64_t others = 0;
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t errors = 0;
  uint64_t ignored_errors = 0;
  uint64_t parked = 0;
  uint64_t batches = 0;
  uint64_t kicks = 0;           // That the queue was served for.
  uint64_t foreign_kicks = 0;   // Of them, those of kVcpu that another thread than the home took.
  uint64_t foreign_kicker = 0;  // The pthread_t of the last one of them; 0: none.
  uint64_t interrupts = 0;
  uint64_t moves = 0;                                // To another loop.
  std::array<uint64_t, kSubmitModes> completions{};  // By SubmitMode of the home that reaped.
  std::array<loop::LatencyHistogram, kBlkOpKinds> latency;  // By BlkOpKind.
  std::array<StageCounts, kQueueStages> stages{};           // By QueueStage.
};

// Without `mode`, `foreign_kicks` and `moves`, which are not of the queue's path.
BlkQueueStats copy_of(const BlkQueueMetrics& blk, const QueueMetrics& queue);

}  // namespace skiff::devices
