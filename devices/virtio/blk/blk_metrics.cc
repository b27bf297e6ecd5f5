// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/blk/blk_metrics.h"

#include <cstddef>

#include "devices/virtio/queue_metrics.h"

namespace skiff::devices {

BlkQueueStats copy_of(const BlkQueueMetrics& blk, const QueueMetrics& queue) {
  BlkQueueStats stats;
  stats.reads = blk.reads.value();
  stats.writes = blk.writes.value();
  stats.flushes = blk.flushes.value();
  stats.others = blk.others.value();
  stats.requests = stats.reads + stats.writes + stats.flushes + stats.others;
  stats.read_bytes = blk.read_bytes.value();
  stats.written_bytes = blk.written_bytes.value();
  stats.errors = blk.errors.value();
  stats.ignored_errors = blk.ignored_errors.value();
  stats.parked = blk.parked.value();
  stats.batches = blk.batches.value();
  stats.kicks = queue.kicks.value();
  stats.interrupts = queue.interrupts.value();
  for (size_t i = 0; i < kSubmitModes; ++i) stats.completions[i] = blk.completions[i].value();
  for (size_t i = 0; i < kBlkOpKinds; ++i) stats.latency[i] = blk.latency[i].snapshot();
  for (size_t i = 0; i < kQueueStages; ++i) stats.stages[i] = queue.stages[i].counts();
  return stats;
}

}  // namespace skiff::devices
