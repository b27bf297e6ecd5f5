// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/host_costs.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loop/result.h"
#include "vmm/experiment/json_keys.h"

namespace skiff::vmm {
namespace {

using loop::Result;

constexpr double kCostMaxNs = 1e9;

constexpr std::array<HostCostInfo, 13> kInfos = {{
    {"wake_ns", "from telling a sleeping thread until it runs", &HostCosts::wake_ns},
    {"timer_ns", "the same when its own timer tells it", &HostCosts::timer_ns},
    {"notify_ns", "CPU of telling it: an eventfd write", &HostCosts::notify_ns},
    {"turn_ns", "CPU of a thread that was woken, before it does anything", &HostCosts::turn_ns},
    {"sleep_ns", "CPU of going to sleep", &HostCosts::sleep_ns},
    {"enter_ns", "CPU of a system call that hands over to the ring", &HostCosts::enter_ns},
    {"op_ns", "CPU of one I/O on the ring", &HostCosts::op_ns},
    {"request_ns", "CPU of the block layer for a request", &HostCosts::request_ns},
    {"queue_ns", "CPU of a virtqueue for a request", &HostCosts::queue_ns},
    {"line_ns", "until a cache line that another core wrote is here", &HostCosts::line_ns},
    {"switch_ns", "CPU of changing threads on a core", &HostCosts::switch_ns},
    {"exit_ns", "from the guest to its vCPU thread and back", &HostCosts::exit_ns},
    {"doorbell_ns", "a doorbell that ends in the kernel (ioeventfd)", &HostCosts::doorbell_ns},
}};

}  // namespace

std::span<const HostCostInfo> host_cost_infos() { return kInfos; }

Result<void> apply_costs_text(HostCosts& costs, std::string_view json) {
  const auto root = parse_json_object(json);
  if (!root) return root.error();
  std::vector<JsonKey> keys;
  for (const HostCostInfo& info : kInfos) {
    keys.push_back({info.name, "nanoseconds, 0 to 1e9",
                    [&costs, &info](const OrderedJson& value) -> Result<bool> {
                      const auto cost = json_number(value, 0, kCostMaxNs);
                      if (cost) costs.*info.value = *cost;
                      return cost.has_value();
                    }});
  }
  return apply_json_keys("", *root, keys);
}

std::string costs_json(const HostCosts& costs) {
  OrderedJson root = OrderedJson::object();
  for (const HostCostInfo& info : kInfos)
    root[std::string(info.name)] = std::round(costs.*info.value);
  return root.dump() + "\n";
}

}  // namespace skiff::vmm
