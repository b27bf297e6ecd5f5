// SPDX-License-Identifier: GPL-2.0-or-later
// QueuesBench: the load of many queues on one device, in rounds over its contestants: the device in
// this process in its ways, and others behind vhost-user sockets.
//
// Thread: the main thread; blocks. Ownership: owns everything of a run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "loop/latency_histogram.h"
#include "loop/result.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/queues_options.h"
#include "vmm/bench/thread_usage.h"

namespace skiff::vmm {

struct QueuesSample {
  double seconds = 0;
  uint64_t measured = 0;  // Requests without the warm-up; the rest with it.
  uint64_t requests = 0;
  uint64_t kicks = 0;
  uint64_t batches = 0;
  uint64_t interrupts = 0;
  uint64_t driver_sleeps = 0;
  int64_t behind_ns = 0;  // Of the slowest queue's rate.
  loop::LatencyHistogram latency;
  std::vector<ThreadUsage> threads;  // Of the process that serves.
  // Of this process, when another one serves.
  std::vector<ThreadUsage> driver_threads;

  double iops() const { return seconds > 0 ? static_cast<double>(measured) / seconds : 0; }
  // CPU time for each request of the threads that serve; with SubmitMode::kVcpu they drive as well.
  double serving_ns(bool drivers_serve) const;
  double sleeps_of_serving(bool drivers_serve) const;
};

struct QueuesResult {
  std::string name;
  bool drivers_serve = false;
  std::vector<QueuesSample> rounds;
  std::optional<double> syscalls;  // For each request, of this process, drivers included.
  std::optional<std::string> error;
};

bool is_driver_thread(const std::string& name);

// kInvalidArgument before anything is written that must not be. A contestant that fails has the
// error in its result and takes part in no further round; when all do, the first one's is ours.
// `on_run` is called after each run.
loop::Result<std::vector<QueuesResult>> run_queues(
    const QueuesBenchOptions& options,
    const std::function<void(const std::string& name, uint32_t round, double iops)>& on_run);

}  // namespace skiff::vmm
