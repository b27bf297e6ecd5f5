// SPDX-License-Identifier: GPL-2.0-or-later
// How the values of options are read: each function sets its target and says whether the text was
// allowed.
//
// Thread: any; pure functions. Ownership: none.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/thread.h"

namespace skiff::vmm {

inline constexpr std::string_view kSwitchValues = "on or off";
inline constexpr std::string_view kSchedValues = "other, batch, idle, fifo:1..99 or rr:1..99";
inline constexpr std::string_view kCpuListValues = "host CPUs like 0-3:8";

template <typename T>
bool assign(T& target, std::optional<uint64_t> value) {
  if (value) target = static_cast<T>(*value);
  return value.has_value();
}

template <typename E>
bool assign_enum(E& target, std::string_view text,
                 std::span<const std::pair<std::string_view, E>> names) {
  for (const auto& [name, value] : names) {
    if (name != text) continue;
    target = value;
    return true;
  }
  return false;
}

bool assign_switch(bool& target, std::string_view text);
// Anything but nothing.
bool assign_text(std::string& target, std::string_view text);
bool assign_sched(loop::SchedPolicy& target, std::string_view text);
// The command line keeps commas for itself: lists inside a value are written with colons. At least
// one CPU.
bool assign_cpus(loop::CpuSet& target, std::string_view text);
// Parts between colons, none of them empty.
bool assign_words(std::vector<std::string>& target, std::string_view text);

enum class DeviceBus : uint8_t { kPci, kMmio };
inline constexpr std::array<std::pair<std::string_view, DeviceBus>, 2> kBusNames = {
    {{"pci", DeviceBus::kPci}, {"mmio", DeviceBus::kMmio}}};

}  // namespace skiff::vmm
