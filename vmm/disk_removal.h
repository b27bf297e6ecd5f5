// SPDX-License-Identifier: GPL-2.0-or-later
// How a disk is to be removed, and where a disk is on its way out.
//
// Thread: any; values. Ownership: none.
#pragma once

#include <cstdint>
#include <string_view>

namespace skiff::vmm {

struct DiskRemoval {
  bool is_forced = false;  // Without asking the guest.
  int64_t timeout_ns = 10'000'000'000;
};

// A disk's place on the PCI bus.
struct DiskPlug {
  enum class State : uint8_t {
    kPlugged,
    kAskedFor,  // The guest is asked to give it up.
    kLeaving,   // Nobody finds it any more; what it has in flight is finished.
  };
  uint8_t slot = 0;
  State state = State::kPlugged;
};

constexpr std::string_view disk_plug_state_name(DiskPlug::State state) {
  switch (state) {
    case DiskPlug::State::kPlugged:
      return "plugged";
    case DiskPlug::State::kAskedFor:
      return "asked-for";
    case DiskPlug::State::kLeaving:
      break;
  }
  return "leaving";
}

}  // namespace skiff::vmm
