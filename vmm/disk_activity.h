// SPDX-License-Identifier: GPL-2.0-or-later
// DiskActivity: what people and scripts get to know about the queues of a disk in use.
//
// Thread: any; values. Ownership: none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace skiff::vmm {

// How long something took; a percentile is the least time that so many did not exceed.
struct LatencySummary {
  std::string_view name;  // Of the operation or the stage.
  uint64_t count = 0;
  int64_t p50_ns = 0;
  int64_t p99_ns = 0;
};

struct QueueStatus {
  std::string_view mode;  // "iothread", "vcpu", "poll".
  std::string home;       // "io0", "vcpu3", "main".
  std::string why;
  uint64_t requests = 0;
  uint64_t batches = 0;
  uint64_t kicks = 0;
  uint64_t interrupts = 0;
  uint64_t moves = 0;
  uint32_t moves_last_minute = 0;
  uint64_t on_submitter = 0;  // Requests completed by the vCPU that rang;
  uint64_t on_target = 0;     // by or beside the vCPU that the interrupts go to;
  uint64_t elsewhere = 0;
};

struct DiskActivity {
  std::string_view submit;  // As asked for: "auto", ...
  std::vector<QueueStatus> queues;
  std::vector<LatencySummary> latency;  // By operation, all queues together.
  std::vector<LatencySummary> stages;   // The way of a request; times are powers of two.
};

}  // namespace skiff::vmm
