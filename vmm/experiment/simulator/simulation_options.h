// SPDX-License-Identifier: GPL-2.0-or-later
// SimulationOptions: what `skiff experiment --simulate` is asked: a machine that nobody has at
// hand.
//
// Thread: any; value types and a pure function.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "loop/result.h"

namespace skiff::vmm {

struct SimulationOptions {
  uint32_t vcpus = 64;          // Each with a queue of its own.
  uint32_t cores = 128;         // Of the host.
  uint32_t l3_cores = 8;        // That share a cache.
  uint32_t iothreads = 4;       // In the arrangement with several.
  uint64_t rate = 5000;         // Requests that each vCPU starts in a second.
  int64_t latency_ns = 30'000;  // Of the device; 0 completes at once.
  int64_t guest_ns = 2'000;     // The guest's own work for a request.
  bool busy_guest = false;      // It computes meanwhile, rather than being halted.
  int64_t duration_ns = 500'000'000;
  uint64_t seed = 1;
  bool check = true;  // Against real runs.
  std::string costs_path;
};

// "vcpus=64,cores=128,..."; errors name key, value and what is allowed.
loop::Result<SimulationOptions> parse_simulation(std::string_view text);

}  // namespace skiff::vmm
