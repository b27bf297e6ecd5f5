// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/disk_times.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/queue_metrics.h"
#include "vmm/disk_activity.h"
#include "vmm/placement/queue_placer.h"

namespace skiff::vmm {
namespace {

constexpr std::array<std::string_view, devices::kBlkOpKinds> kOperations = {"read", "write",
                                                                            "flush", "other"};

// The upper end of the bucket: bucket b is for times of less than 2^b ns.
int64_t percentile_ns(const devices::StageCounts& counts, uint64_t count, double percent) {
  const auto wanted = static_cast<uint64_t>(std::ceil(percent / 100 * static_cast<double>(count)));
  uint64_t seen = 0;
  for (size_t bucket = 0; bucket < counts.size(); ++bucket) {
    seen += counts[bucket];
    if (seen >= wanted) return int64_t{1} << bucket;
  }
  return int64_t{1} << (counts.size() - 1);
}

}  // namespace

QueueStatus queue_status(const devices::BlkQueueStats& stats, const QueueWhere& where) {
  QueueStatus status{.mode = devices::submit_mode_name(where.mode),
                     .home = where.home,
                     .why = where.why,
                     .requests = stats.requests,
                     .batches = stats.batches,
                     .kicks = stats.kicks,
                     .interrupts = stats.interrupts,
                     .moves = where.moves,
                     .moves_last_minute = where.moves_last_minute};
  status.on_submitter = where.on_submitter;
  status.on_target = where.on_target;
  status.elsewhere = where.elsewhere;
  return status;
}

void DiskTimes::add(const devices::BlkQueueStats& stats) {
  for (size_t op = 0; op < latency_.size(); ++op) latency_[op].merge(stats.latency[op]);
  for (size_t stage = 0; stage < stages_.size(); ++stage)
    for (size_t bucket = 0; bucket < stages_[stage].size(); ++bucket)
      stages_[stage][bucket] += stats.stages[stage][bucket];
}

std::vector<LatencySummary> DiskTimes::latency() const {
  std::vector<LatencySummary> summaries;
  for (size_t op = 0; op < latency_.size(); ++op)
    if (latency_[op].count() > 0)
      summaries.push_back({kOperations[op], latency_[op].count(), latency_[op].percentile_ns(50),
                           latency_[op].percentile_ns(99)});
  return summaries;
}

std::vector<LatencySummary> DiskTimes::stages() const {
  std::vector<LatencySummary> summaries;
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    const devices::StageCounts& counts = stages_[stage];
    const uint64_t count = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
    if (count > 0)
      summaries.push_back({devices::queue_stage_name(static_cast<devices::QueueStage>(stage)),
                           count, percentile_ns(counts, count, 50),
                           percentile_ns(counts, count, 99)});
  }
  return summaries;
}

}  // namespace skiff::vmm
