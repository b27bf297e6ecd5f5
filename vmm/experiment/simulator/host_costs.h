// SPDX-License-Identifier: GPL-2.0-or-later
// HostCosts: what the steps of a request cost on a host, in nanoseconds.
//
// Thread: any; value types and pure functions.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "loop/result.h"

namespace skiff::vmm {

// Defaults are those of the development machine, for what cannot be measured.
struct HostCosts {
  double wake_ns = 15'000;     // From when a sleeping thread was told until it runs.
  double timer_ns = 15'000;    // The same when it was its own timer.
  double notify_ns = 2'000;    // To tell it: an eventfd write. CPU time of who tells.
  double turn_ns = 1'000;      // CPU time of a thread that was woken, before it does anything.
  double sleep_ns = 1'000;     // CPU time to go to sleep.
  double enter_ns = 300;       // CPU time of a system call that hands over to the ring.
  double op_ns = 200;          // CPU time of one I/O on the ring.
  double request_ns = 100;     // CPU time of the block layer for a request.
  double queue_ns = 150;       // CPU time of a virtqueue for a request: taken out, put back.
  double line_ns = 60;         // Until a cache line that another core wrote is here.
  double switch_ns = 1'500;    // To change from one thread to another on a core.
  double exit_ns = 2'000;      // From the guest to its vCPU thread and back.
  double doorbell_ns = 1'000;  // A doorbell that ends in the kernel (ioeventfd).
};

struct HostCostInfo {
  std::string_view name;
  std::string_view meaning;
  double HostCosts::* value;
};
std::span<const HostCostInfo> host_cost_infos();

// {"wake_ns": 5000, ...} over `costs`; errors name the key, its value and what is allowed.
loop::Result<void> apply_costs_text(HostCosts& costs, std::string_view json);
// As that JSON.
std::string costs_json(const HostCosts& costs);

}  // namespace skiff::vmm
