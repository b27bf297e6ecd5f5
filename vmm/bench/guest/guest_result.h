// SPDX-License-Identifier: GPL-2.0-or-later
// What a payload guest has measured, and what was seen of it from outside.
//
// Thread: any; value types and pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loop/latency_histogram.h"
#include "loop/result.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/thread_usage.h"

namespace skiff::vmm {

// From the guest's JSON document.
struct GuestDocument {
  uint64_t reads = 0;  // Measured, without the warm-up; the next five with it.
  uint64_t writes = 0;
  uint64_t requests = 0;
  uint64_t kicks = 0;
  uint64_t batches = 0;
  uint64_t interrupts = 0;
  uint64_t halts = 0;
  int64_t ran_ns = 0;     // The warm-up included.
  int64_t behind_ns = 0;  // Of its rate, all queues added up.
  uint64_t features = 0;
  loop::LatencyHistogram latency;
  double mean_ns = 0;  // Exact; the histogram's is that of its buckets.
};
// kIo with the guest's own words when it says that it failed; kCorrupt for anything that is no such
// document.
loop::Result<GuestDocument> parse_guest_document(std::string_view text);

// One run of one contestant.
struct GuestSample {
  GuestDocument guest;
  double seconds = 0;                // Measured, without the warm-up.
  int64_t boot_ns = 0;               // From the process's start to the guest's.
  std::vector<ThreadUsage> threads;  // While the guest worked, the warm-up included.

  double iops() const;
  double cpu_ns_per_request() const;
  // Of threads that are no vCPUs, and of vCPU threads outside the guest.
  double io_cpu_ns_per_request() const;
  double vcpu_host_ns_per_request() const;
  double sleeps_per_request() const;
};
bool is_vcpu_thread(std::string_view name);

struct GuestResult {
  std::string name;
  std::vector<GuestSample> rounds;
  // Events of the kernel for each request, by name, from a run that was counted and not timed.
  std::map<std::string, double> counted;
  std::optional<std::string> error;  // Why there are no more rounds.
};

struct GuestSummary {
  Spread iops;
  Spread p50_ns;
  Spread mean_ns;
  double cpu_ns = 0;  // For each request, like the next.
  double io_cpu_ns = 0;
  double vcpu_host_ns = 0;
  double sleeps = 0;
  double kicks = 0;
  double interrupts = 0;
  double boot_ms = 0;
  int64_t behind_ns = 0;
  loop::LatencyHistogram latency;  // Of all rounds.
};
GuestSummary summarise(const GuestResult& result);

}  // namespace skiff::vmm
