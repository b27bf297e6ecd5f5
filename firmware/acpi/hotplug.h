// SPDX-License-Identifier: GPL-2.0-or-later
// The guest's side of PCI hot plug: what the DSDT says so that the operating system's ACPI driver
// finds and gives up devices on bus 0. The machine's side is devices/pci/pci_hotplug.h.
//
// Thread: any; pure functions. Ownership: values.
#pragma once

#include <cstdint>
#include <vector>

#include "firmware/acpi/aml.h"
#include "firmware/acpi/tables.h"

namespace skiff::firmware {

inline constexpr uint8_t kPciHotplugPorts = 16;

// Inside the host bridge: the registers, a device for each slot, and the method that notifies.
std::vector<Aml> make_pci_slots(const AcpiPciHotplug& hotplug);
// At the root: the general-purpose event that calls it.
Aml make_hotplug_event(const AcpiPciHotplug& hotplug);

}  // namespace skiff::firmware
