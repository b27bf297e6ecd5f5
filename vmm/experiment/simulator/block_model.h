// SPDX-License-Identifier: GPL-2.0-or-later
// BlockModel: requests of many vCPUs on their way through Skiff, simulated.
//
// Each vCPU starts requests at random (Poisson) on a queue of its own. Where the queue's home is an
// IOThread: the doorbell wakes it unless it is awake already; it takes what is there, submits,
// reaps what has ended, and interrupts each vCPU once. Where it is the vCPU: the doorbell is an
// exit, and a completion is another one; nobody else runs, and no cache line moves.
// Thread: any; a pure function.
#pragma once

#include <cstdint>

#include "loop/latency_histogram.h"
#include "vmm/experiment/simulator/host_costs.h"

namespace skiff::vmm {

struct ModelOptions {
  enum class Home : uint8_t { kIoThread, kVcpu };
  Home home = Home::kIoThread;
  uint32_t iothreads = 1;  // Queues are dealt out to them in turn.
  bool near = false;       // Each on the cache of its vCPUs.
  uint32_t vcpus = 64;
  uint32_t cores = 128;
  double rate = 5000;  // Of each vCPU, requests a second.
  int64_t latency_ns = 0;
  int64_t guest_ns = 0;
  bool busy_guest = false;
  int64_t duration_ns = 500'000'000;
  uint64_t seed = 1;
};

struct ModelResult {
  uint64_t started = 0;
  uint64_t completed = 0;
  double seconds = 0;
  loop::LatencyHistogram latency;  // From when it was due to when the guest has it back.
  double home_cpu_ns = 0;  // Of the IOThreads, or of Skiff's work on vCPU threads, a request.
  double busiest = 0;      // The busiest thread's part of its time, 0 to 1.
  double wakes_per_request = 0;

  // The threads cannot keep up: latencies only say how long it was simulated.
  bool saturated() const {
    return static_cast<double>(completed) < 0.97 * static_cast<double>(started);
  }
};

ModelResult simulate_block(const ModelOptions& options, const HostCosts& costs);

}  // namespace skiff::vmm
