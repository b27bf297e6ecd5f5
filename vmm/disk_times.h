// SPDX-License-Identifier: GPL-2.0-or-later
// From the counters of a disk's queues to its DiskActivity.
//
// Thread: any; values. Ownership: none.
#pragma once

#include <array>
#include <vector>

#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/queue_metrics.h"
#include "loop/latency_histogram.h"
#include "vmm/disk_activity.h"
#include "vmm/placement/queue_placer.h"

namespace skiff::vmm {

// Of one queue of a disk.
QueueStatus queue_status(const devices::BlkQueueStats& stats, const QueueWhere& where);

// The times of all queues of a disk, added up.
class DiskTimes {
 public:
  void add(const devices::BlkQueueStats& stats);
  // What never happened is left out.
  std::vector<LatencySummary> latency() const;
  std::vector<LatencySummary> stages() const;

 private:
  std::array<loop::LatencyHistogram, devices::kBlkOpKinds> latency_;
  std::array<devices::StageCounts, devices::kQueueStages> stages_{};
};

}  // namespace skiff::vmm
