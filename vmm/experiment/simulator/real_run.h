// SPDX-License-Identifier: GPL-2.0-or-later
// What the model is checked against: real threads, event loops and doorbells, and a null device.
//
// Each pair is a generator, which plays a vCPU, and an IOThread. The generator starts requests at
// random times on a ring in memory and rings an eventfd unless the IOThread is awake; the IOThread
// submits them to the block layer, puts them back on a ring, and notifies once a turn.
// Thread: any; blocks for the duration. Ownership: values.
#pragma once

#include <cstdint>

#include "loop/latency_histogram.h"
#include "loop/result.h"

namespace skiff::vmm {

struct RealRunOptions {
  uint32_t pairs = 1;
  double rate = 5000;  // Of each generator.
  int64_t duration_ns = 400'000'000;
  uint64_t seed = 1;
};

struct RealRunResult {
  uint64_t completed = 0;
  double seconds = 0;
  loop::LatencyHistogram latency;  // From when a request was due to when its generator has it back.
  double home_cpu_ns = 0;          // Of the IOThreads, a request.
};

loop::Result<RealRunResult> run_real(const RealRunOptions& options);

}  // namespace skiff::vmm
