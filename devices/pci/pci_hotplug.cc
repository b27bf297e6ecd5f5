// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/pci_hotplug.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "devices/core/bus.h"
#include "devices/pci/pci_bus.h"
#include "loop/check.h"
#include "loop/mutex.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

enum Register : uint8_t { kCheck = 0, kAsk = 4, kEject = 8, kGone = 12 };

uint32_t bit_of(uint8_t slot) {
  SKIFF_CHECK(slot > 0 && slot < PciBus::kSlotCount);
  return uint32_t{1} << slot;
}

}  // namespace

void PciHotplug::allow_eject(uint8_t slot) {
  const loop::MutexLock lock(mutex_);
  ejectable_ |= bit_of(slot);
}

void PciHotplug::announce(uint8_t slot) {
  {
    const loop::MutexLock lock(mutex_);
    ejectable_ |= bit_of(slot);
    check_ |= bit_of(slot);
  }
  options_.raise_event();
}

void PciHotplug::ask_for(uint8_t slot) {
  {
    const loop::MutexLock lock(mutex_);
    if ((ejectable_ & bit_of(slot)) == 0) return;
    ask_ |= bit_of(slot);
  }
  options_.raise_event();
}

bool PciHotplug::forbid_eject(uint8_t slot) {
  const loop::MutexLock lock(mutex_);
  if ((ejectable_ & bit_of(slot)) == 0) return false;
  ejectable_ &= ~bit_of(slot);
  check_ &= ~bit_of(slot);
  ask_ &= ~bit_of(slot);
  return true;
}

void PciHotplug::announce_gone() {
  {
    const loop::MutexLock lock(mutex_);
    gone_ = 1;
  }
  options_.raise_event();
}

void PciHotplug::bus_read(uint64_t offset_bytes, std::span<uint8_t> data) {
  std::ranges::fill(data, uint8_t{0xff});
  if (data.size() != 4) return;
  const loop::MutexLock lock(mutex_);
  switch (offset_bytes) {
    case kCheck:
      return store_le(data, check_);
    case kAsk:
      return store_le(data, ask_);
    case kEject:
      return store_le(data, ejectable_);
    case kGone:
      return store_le(data, gone_);
    default:
      return;
  }
}

void PciHotplug::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (data.size() != 4) return;
  const uint32_t ejected = clear_and_take(offset_bytes, static_cast<uint32_t>(load_le(data)));
  for (uint8_t slot = 1; slot < PciBus::kSlotCount; ++slot)
    if ((ejected & bit_of(slot)) != 0) options_.ejected(slot);
}

// The slots that the write empties.
uint32_t PciHotplug::clear_and_take(uint64_t offset_bytes, uint32_t value) {
  const loop::MutexLock lock(mutex_);
  switch (offset_bytes) {
    case kCheck:
      check_ &= ~value;
      return 0;
    case kAsk:
      ask_ &= ~value;
      return 0;
    case kGone:
      gone_ &= ~value;
      return 0;
    case kEject: {
      const uint32_t ejected = ejectable_ & value;
      ejectable_ &= ~ejected;
      check_ &= ~ejected;
      ask_ &= ~ejected;
      return ejected;
    }
    default:
      return 0;
  }
}

loop::Task<void> PciHotplug::reset() {
  const loop::MutexLock lock(mutex_);
  check_ = ask_ = gone_ = 0;
  co_return;
}

}  // namespace skiff::devices
