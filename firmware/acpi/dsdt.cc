// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/acpi/dsdt.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "firmware/acpi/aml.h"
#include "firmware/acpi/hotplug.h"
#include "firmware/acpi/resources.h"
#include "firmware/acpi/tables.h"

namespace skiff::firmware {
namespace {

// "C00A": a letter and three hexadecimal digits.
std::string numbered(char letter, size_t number) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return {letter, kDigits[number >> 8 & 0xf], kDigits[number >> 4 & 0xf], kDigits[number & 0xf]};
}

// PCI Firmware Specification 3.3, 4.5.1 "_OSC Interface for PCI Host Bridge Devices": nothing in
// this machine's firmware wants PME, AER or the capability structure for itself; hot plug, native
// and SHPC's, it keeps when it has methods for it.
Aml make_osc(bool has_hotplug) {
  constexpr uint64_t kAllControls = 0x1f;
  constexpr uint64_t kHotplugControls = 0x03;
  const uint64_t known_controls = has_hotplug ? kAllControls & ~kHotplugControls : kAllControls;
  constexpr uint64_t kUnknownUuid = 0x04;
  constexpr uint64_t kUnknownRevision = 0x08;
  constexpr uint64_t kControlsMasked = 0x10;
  const Aml status = aml_path("CDW1");
  const Aml controls = aml_path("CDW3");
  const Aml buffer = aml_argument(3);
  const Aml granted = aml_local(0);
  const Aml pci_uuid = aml_uuid("33db4d5b-1ff7-401c-9657-7441c03dd766");
  return aml_method("_OSC", 4,
                    {aml_create_dword_field(buffer, 0, "CDW1"),
                     aml_if(aml_equal(aml_argument(0), pci_uuid),
                            {aml_create_dword_field(buffer, 8, "CDW3"),
                             aml_and(controls, aml_integer(known_controls), granted),
                             aml_if(aml_not(aml_equal(aml_argument(1), aml_integer(1))),
                                    {aml_or(status, aml_integer(kUnknownRevision), status)}),
                             aml_if(aml_not(aml_equal(granted, controls)),
                                    {aml_or(status, aml_integer(kControlsMasked), status)}),
                             aml_store(granted, controls), aml_return(buffer)}),
                     aml_or(status, aml_integer(kUnknownUuid), status), aml_return(buffer)});
}

Aml make_pci_host(const AcpiPciHost& pci) {
  constexpr uint16_t kConfigPort = 0xcf8;
  std::vector<Aml> resources = {aml_bus_numbers(0, static_cast<uint8_t>(pci.bus_count - 1)),
                                aml_io(kConfigPort, 8)};
  for (const AcpiIoWindow& window : pci.io_windows)
    resources.push_back(aml_io_window(window.base, window.length));
  if (pci.memory32.size_bytes != 0)
    resources.push_back(
        aml_memory32_window(static_cast<uint32_t>(pci.memory32.base), pci.memory32.size_bytes));
  if (pci.memory64.size_bytes != 0)
    resources.push_back(aml_memory64_window(pci.memory64.base, pci.memory64.size_bytes));
  std::vector<Aml> terms = {
      aml_name("_HID", aml_eisa_id("PNP0A08")), aml_name("_CID", aml_eisa_id("PNP0A03")),
      aml_name("_SEG", aml_integer(0)),         aml_name("_BBN", aml_integer(0)),
      aml_name("_UID", aml_integer(0)),         aml_name("_CRS", aml_resources(resources)),
      make_osc(pci.hotplug.has_value())};
  if (pci.hotplug)
    for (Aml& term : make_pci_slots(*pci.hotplug)) terms.push_back(std::move(term));
  return aml_device("PCI0", terms);
}

// Linux uses the ECAM only if a motherboard resource or the memory map reserves it.
Aml make_motherboard(const AcpiPciHost& pci) {
  const bool is_low = pci.ecam_base + pci.ecam_bytes <= UINT32_MAX;
  const Aml ecam = is_low ? aml_memory32(static_cast<uint32_t>(pci.ecam_base),
                                         static_cast<uint32_t>(pci.ecam_bytes))
                          : aml_memory64_window(pci.ecam_base, pci.ecam_bytes);
  std::vector<Aml> resources = {ecam};
  if (pci.hotplug) resources.push_back(aml_io(pci.hotplug->port, kPciHotplugPorts));
  return aml_device("MB00",
                    {aml_name("_HID", aml_eisa_id("PNP0C02")), aml_name("_UID", aml_integer(0)),
                     aml_name("_CRS", aml_resources(resources))});
}

Aml make_uart(const AcpiUart& uart, size_t index) {
  return aml_device(
      "COM" + std::to_string(index + 1),
      {aml_name("_HID", aml_eisa_id("PNP0501")), aml_name("_UID", aml_integer(index + 1)),
       aml_name("_CRS", aml_resources({aml_io(uart.port, 8), aml_isa_irq(uart.irq)}))});
}

Aml make_rtc() {
  constexpr uint16_t kPort = 0x70;
  constexpr uint8_t kIrq = 8;
  return aml_device("RTC0",
                    {aml_name("_HID", aml_eisa_id("PNP0B00")),
                     aml_name("_CRS", aml_resources({aml_io(kPort, 2), aml_isa_irq(kIrq)}))});
}

Aml make_keyboard() {
  constexpr uint16_t kDataPort = 0x60;
  constexpr uint16_t kCommandPort = 0x64;
  constexpr uint8_t kIrq = 1;
  return aml_device("KBD0",
                    {aml_name("_HID", aml_eisa_id("PNP0303")),
                     aml_name("_CRS", aml_resources({aml_io(kDataPort, 1), aml_io(kCommandPort, 1),
                                                     aml_isa_irq(kIrq)}))});
}

Aml make_pvpanic(uint16_t port) {
  constexpr uint64_t kPresentAndHidden = 0xb;  // Present, enabled, functioning; not shown.
  return aml_device("PEVT", {aml_name("_HID", aml_string("QEMU0001")),
                             aml_name("_STA", aml_integer(kPresentAndHidden)),
                             aml_name("_CRS", aml_resources({aml_io(port, 1)}))});
}

// Linux drivers/virtio/virtio_mmio.c finds these.
Aml make_virtio_mmio(const AcpiVirtioMmio& device, size_t index) {
  return aml_device(
      numbered('V', index),
      {aml_name("_HID", aml_string("LNRO0005")), aml_name("_UID", aml_integer(index)),
       aml_name("_CCA", aml_integer(1)),
       aml_name("_CRS", aml_resources({aml_memory32(static_cast<uint32_t>(device.base),
                                                    static_cast<uint32_t>(device.size_bytes)),
                                       aml_interrupt(device.gsi, device.trigger)}))});
}

// _UID is the one in the MADT.
Aml make_processor(size_t index) {
  return aml_device(numbered('C', index), {aml_name("_HID", aml_string("ACPI0007")),
                                           aml_name("_UID", aml_integer(index))});
}

}  // namespace

std::vector<uint8_t> build_dsdt_aml(const AcpiConfig& config) {
  std::vector<Aml> devices;
  devices.reserve(config.apic_ids.size());
  for (size_t i = 0; i < config.apic_ids.size(); ++i) devices.push_back(make_processor(i));
  if (config.pci) {
    devices.push_back(make_pci_host(*config.pci));
    devices.push_back(make_motherboard(*config.pci));
  }
  for (size_t i = 0; i < config.uarts.size(); ++i) devices.push_back(make_uart(config.uarts[i], i));
  if (config.has_rtc) devices.push_back(make_rtc());
  if (config.has_i8042) devices.push_back(make_keyboard());
  if (config.pvpanic_port) devices.push_back(make_pvpanic(*config.pvpanic_port));
  for (size_t i = 0; i < config.virtio_mmio.size(); ++i)
    devices.push_back(make_virtio_mmio(config.virtio_mmio[i], i));

  Aml aml = aml_scope("\\_SB_", devices);
  const Aml sleep_type = aml_integer(config.s5_sleep_type);
  aml.append(
      aml_name("\\_S5_", aml_package({sleep_type, sleep_type, aml_integer(0), aml_integer(0)})));
  if (config.pci && config.pci->hotplug) aml.append(make_hotplug_event(*config.pci->hotplug));
  return aml.bytes();
}

}  // namespace skiff::firmware
