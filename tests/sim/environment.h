// SPDX-License-Identifier: GPL-2.0-or-later
// Numbers that the environment gives to simulations.
//
// Thread: the test's. Ownership: none.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <optional>

namespace skiff::sim {

inline std::optional<uint64_t> environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

}  // namespace skiff::sim
