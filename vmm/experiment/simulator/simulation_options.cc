// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/simulation_options.h"

#include <cstdint>
#include <string_view>
#include <vector>

#include "block/units.h"
#include "loop/result.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

using loop::Result;

template <typename T>
Field number_field(std::string_view name, std::string_view allowed, T& target, uint64_t max) {
  return {name, allowed, [&target, max](std::string_view text) {
            const auto number = parse_uint(text, 1, max);
            if (number) target = static_cast<T>(*number);
            return number.has_value();
          }};
}

Field time_field(std::string_view name, std::string_view allowed, int64_t& target,
                 uint64_t max_ns) {
  return {name, allowed, [&target, max_ns](std::string_view text) {
            const auto time_ns = block::parse_time_ns(text, max_ns);
            if (time_ns) target = static_cast<int64_t>(*time_ns);
            return time_ns.has_value();
          }};
}

}  // namespace

Result<SimulationOptions> parse_simulation(std::string_view text) {
  SimulationOptions options;
  const auto pairs = split_options("--simulate", text, "");
  if (!pairs) return pairs.error();
  const std::vector<Field> fields = {
      number_field("vcpus", "1 to 1024", options.vcpus, 1024),
      number_field("cores", "1 to 4096", options.cores, 4096),
      number_field("l3", "cores that share a cache, 1 to 4096", options.l3_cores, 4096),
      number_field("iothreads", "1 to 1024", options.iothreads, 1024),
      number_field("rate", "requests a second of each vCPU, 1 to 1000000", options.rate, 1'000'000),
      time_field("latency", "0 to 1s, like 30us", options.latency_ns, 1'000'000'000),
      time_field("guest", "0 to 1ms, like 2us", options.guest_ns, 1'000'000),
      time_field("duration", "up to 10s, like 500ms", options.duration_ns, 10'000'000'000),
      {"busy", "on or off",
       [&](std::string_view value) {
         const auto busy = parse_switch(value);
         options.busy_guest = busy.value_or(false);
         return busy.has_value();
       }},
      {"check", "on or off", [&](std::string_view value) {
         const auto check = parse_switch(value);
         options.check = check.value_or(true);
         return check.has_value();
       }}};
  SKIFF_RETURN_IF_ERROR(apply_fields("--simulate", *pairs, fields));
  return options;
}

}  // namespace skiff::vmm
