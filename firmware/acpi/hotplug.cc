// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/acpi/hotplug.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "firmware/acpi/aml.h"
#include "firmware/acpi/tables.h"
#include "loop/check.h"

namespace skiff::firmware {
namespace {

constexpr uint8_t kSlots = 32;

// ACPI 6.5, 5.6.6 "Device Object Notifications".
constexpr uint8_t kBusCheck = 0;
constexpr uint8_t kDeviceCheck = 1;
constexpr uint8_t kEjectRequest = 3;

bool has_slot(const AcpiPciHotplug& hotplug, uint8_t slot) {
  return (hotplug.slots >> slot & 1) != 0;
}

// "S01F".
std::string slot_name(uint8_t slot) {
  constexpr std::array<char, 16> kDigits = {'0', '1', '2', '3', '4', '5', '6', '7',
                                            '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'};
  return {'S', '0', kDigits[slot >> 4], kDigits[slot & 0xf]};
}

// Without _STA: the operating system looks into configuration space.
Aml make_slot(uint8_t slot) {
  constexpr uint32_t kDeviceShift = 16;  // 6.1.1 "_ADR": device number, function number.
  const Aml eject = aml_store(aml_integer(uint32_t{1} << slot), aml_path("PHEJ"));
  return aml_device(slot_name(slot),
                    {aml_name("_ADR", aml_integer(uint32_t{slot} << kDeviceShift)),
                     aml_name("_SUN", aml_integer(slot)), aml_method("_EJ0", 1, {eject})});
}

// Reads the register and clears what it read before it tells anybody: what comes later raises the
// event once more.
void add_notifications(std::vector<Aml>& terms, const AcpiPciHotplug& hotplug,
                       std::string_view name, uint8_t what) {
  const Aml slots = aml_local(0);
  terms.push_back(aml_store(aml_path(name), slots));
  terms.push_back(aml_store(slots, aml_path(name)));
  for (uint8_t slot = 0; slot < kSlots; ++slot) {
    if (!has_slot(hotplug, slot)) continue;
    const Aml is_meant = aml_and(slots, aml_integer(uint32_t{1} << slot), aml_nowhere());
    terms.push_back(aml_if(is_meant, {aml_notify(aml_path(slot_name(slot)), what)}));
  }
}

}  // namespace

std::vector<Aml> make_pci_slots(const AcpiPciHotplug& hotplug) {
  SKIFF_CHECK(!has_slot(hotplug, 0));  // The host bridge's.
  std::vector<Aml> terms = {aml_io_region("PHPR", hotplug.port, kPciHotplugPorts),
                            aml_dword_fields("PHPR", {"PHCK", "PHAS", "PHEJ", "PHGO"})};
  for (uint8_t slot = 0; slot < kSlots; ++slot)
    if (has_slot(hotplug, slot)) terms.push_back(make_slot(slot));

  std::vector<Aml> event;
  const Aml gone = aml_local(0);
  event.push_back(aml_store(aml_path("PHGO"), gone));
  event.push_back(aml_store(gone, aml_path("PHGO")));
  // The whole bus: the operating system then finds what is not there any more.
  event.push_back(aml_if(gone, {aml_notify(aml_path("PCI0"), kBusCheck)}));
  add_notifications(event, hotplug, "PHCK", kDeviceCheck);
  add_notifications(event, hotplug, "PHAS", kEjectRequest);
  terms.push_back(aml_method("PHEV", 0, event));
  return terms;
}

Aml make_hotplug_event(const AcpiPciHotplug& hotplug) {
  // _Exx: the event's status is cleared before the method runs (5.6.4.1).
  SKIFF_CHECK(hotplug.event < 10);
  const std::string name = {'_', 'E', '0', static_cast<char>('0' + hotplug.event)};
  const std::array<Aml, 1> terms = {aml_method(name, 0, {aml_path("\\_SB_.PCI0.PHEV")})};
  return aml_scope("\\_GPE", terms);
}

}  // namespace skiff::firmware
