// SPDX-License-Identifier: GPL-2.0-or-later
// PciHotplug: the registers between the machine and the guest's ACPI methods by which PCI devices
// on bus 0 come and go. One range of I/O ports, 32-bit accesses; bit N is about slot N:
//
//   0x620  CHECK   a device was put into these slots           read; writing ones clears
//   0x624  ASK     the guest is asked to give these up         read; writing ones clears
//   0x628  EJECT   read: may be given up; writing a one does it
//   0x62c  GONE    bit 0: one was taken away without asking    read; writing ones clears
//
// Every change the guest should know of raises general-purpose event kEvent, whose method in the
// DSDT (firmware/acpi/hotplug.cc) reads the three, clears what it read, and notifies.
// Thread: registers from vCPU threads; the rest from any. `ejected` is called on the vCPU thread
//         that wrote, with no lock held.
// Ownership: the machine's.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "devices/core/bus.h"
#include "devices/core/device.h"
#include "loop/mutex.h"

namespace skiff::devices {

class PciHotplug final : public BusDevice, public Device {
 public:
  static constexpr uint16_t kBasePort = 0x620;
  static constexpr uint64_t kSizeBytes = 16;
  static constexpr uint8_t kEvent = 1;  // Of AcpiPm's.

  struct Options {
    std::function<void()> raise_event;
    // The guest has given up what was in this slot. Once for each announce().
    std::function<void(uint8_t slot)> ejected;
  };
  explicit PciHotplug(Options options) : options_(std::move(options)) {}

  // What is in `slot` may be ejected from now on; the guest finds it by itself when it boots.
  void allow_eject(uint8_t slot);
  // The same for what the guest does not know of yet: it is told.
  void announce(uint8_t slot);
  // Asks the guest to give it up. Asking again is allowed; nothing happens when it has.
  void ask_for(uint8_t slot);
  // From now on the guest cannot eject it; false when it was faster, and `ejected` was or will be
  // called.
  bool forbid_eject(uint8_t slot);
  // Something was taken away without asking: the guest looks what.
  void announce_gone();

  void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
  void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  std::string_view name() const override { return "pci-hotplug"; }
  // A guest that boots sees for itself what is there; what was asked of the one before is void.
  loop::Task<void> reset() override;

 private:
  uint32_t clear_and_take(uint64_t offset_bytes, uint32_t value) SKIFF_EXCLUDES(mutex_);

  const Options options_;
  loop::Mutex mutex_;
  uint32_t check_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint32_t ask_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint32_t ejectable_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint32_t gone_ SKIFF_GUARDED_BY(mutex_) = 0;
};

}  // namespace skiff::devices
