// SPDX-License-Identifier: GPL-2.0-or-later
// Short measurements of what the steps of a request cost on this host.
//
// Thread: any without a loop that turns meanwhile; takes about a second. Ownership: values.
#pragma once

#include <string>
#include <vector>

#include "loop/result.h"
#include "vmm/experiment/simulator/host_costs.h"

namespace skiff::vmm {

struct ProbedCosts {
  HostCosts costs;
  std::vector<std::string> notes;  // What could not be measured, and what is assumed instead.
};
loop::Result<ProbedCosts> probe_host_costs();

// Parts of it. An error leaves the costs as they were.
loop::Result<void> probe_threads(HostCosts& costs);  // wake, notify, turn, timer.
loop::Result<void> probe_ring(HostCosts& costs);     // enter, op.
loop::Result<void> probe_block_layer(HostCosts& costs);
loop::Result<void> probe_virtqueue(HostCosts& costs);
loop::Result<void> probe_cores(HostCosts& costs);  // line, switch.
loop::Result<void> probe_kvm(HostCosts& costs);    // exit, doorbell.

}  // namespace skiff::vmm
