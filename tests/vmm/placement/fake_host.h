// SPDX-License-Identifier: GPL-2.0-or-later
// A host to place threads on: 2 sockets, each a memory node and a shared cache, 16 cores of 2
// hardware threads each; CPU i and i + 32 share a core.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "vmm/placement/host_topology.h"

namespace skiff::vmm {

inline HostTopology two_sockets_with_smt() {
  std::vector<HostCpu> cpus;
  for (uint32_t cpu = 0; cpu < 64; ++cpu) {
    const uint32_t core = cpu % 32;
    const uint32_t socket = core / 16;
    cpus.push_back({cpu, socket, core, socket * 16, socket});
  }
  return HostTopology(std::move(cpus));
}

}  // namespace skiff::vmm
