// SPDX-License-Identifier: GPL-2.0-or-later
// The ACPI tables of the machine: RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT (ACPI 6.5, chapter
// 5).
//
// Not hardware-reduced: a PM1a block, a PM timer and the SCI, as a stock kernel with an in-kernel
// PIC and PIT expects. ACPI mode is always on (SMI_CMD is 0); the power button is the fixed one.
// The MADT says that the PIT's IRQ 0 arrives at IOAPIC pin 2, as on a PC: KVM's default routing
// brings it to pin 0, so the machine must route GSI 0 to PIC pin 0 and IOAPIC pin 2. PM1 enable
// must read back what was written, or the guest complains about the global lock. Thread: any; pure
// functions but for write_acpi_tables(). Ownership: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/acpi/resources.h"
#include "loop/result.h"

namespace skiff::firmware {

struct AcpiUart {
  uint16_t port = 0x3f8;  // Eight ports from here.
  uint8_t irq = 4;
};

struct AcpiVirtioMmio {
  uint64_t base = 0;
  uint64_t size_bytes = 0;
  uint32_t gsi = 0;
  Trigger trigger = Trigger::kEdge;
};

struct AcpiIoWindow {
  uint16_t base = 0;
  uint32_t length = 0;
};

struct AcpiMemoryWindow {
  uint64_t base = 0;
  uint64_t size_bytes = 0;  // 0: there is none.
};

// See devices/pci/pci_hotplug.h.
struct AcpiPciHotplug {
  uint16_t port = 0x620;  // Sixteen ports from here.
  uint8_t event = 1;      // Of the general-purpose events, below 10.
  uint32_t slots = 0;     // Bit N: what is in slot N may come and go. Never slot 0.
};

struct AcpiPciHost {
  uint64_t ecam_base = 0;
  uint64_t ecam_bytes = 0;   // 1 MiB for each bus.
  uint16_t bus_count = 256;  // From bus 0.
  std::vector<AcpiIoWindow> io_windows = {{0x0000, 0x0cf8}, {0x0d00, 0xf300}};
  AcpiMemoryWindow memory32;
  AcpiMemoryWindow memory64;
  std::optional<AcpiPciHotplug> hotplug;
};

struct AcpiConfig {
  std::vector<uint32_t> apic_ids;  // Of each vCPU, ascending; the boot vCPU first.
  uint64_t local_apic_address = 0xfee00000;
  uint32_t ioapic_address = 0xfec00000;
  uint8_t ioapic_id = 0;

  std::optional<AcpiPciHost> pci;

  uint16_t pm1a_event_port = 0x600;    // Status and enable, two bytes each.
  uint16_t pm1a_control_port = 0x604;  // Two bytes.
  uint16_t pm_timer_port = 0x608;      // Four bytes; 3.579545 MHz, 24 bits count.
  uint16_t gpe0_port = 0x60c;          // Status and enable of 16 events, two bytes each.
  uint16_t reset_port = 0xcf9;
  uint8_t reset_value = 0x06;
  uint8_t sci_irq = 9;        // Level, active high.
  uint8_t s5_sleep_type = 5;  // SLP_TYP that powers off, written to PM1a control with SLP_EN.

  std::vector<AcpiUart> uarts;
  bool has_rtc = true;
  bool has_i8042 = true;
  std::optional<uint16_t> pvpanic_port;
  std::vector<AcpiVirtioMmio> virtio_mmio;
};

// One table as the guest will see it.
struct AcpiTable {
  std::string signature;  // "RSD PTR ", "XSDT", "FACP", "FACS", "APIC", "MCFG", "DSDT".
  devices::GuestAddress address;
  std::vector<std::byte> bytes;
};

// The tables from `base` on, which is 64-byte aligned; the RSDP is first and at `base`.
// kInvalidArgument when the configuration cannot be said in ACPI.
loop::Result<std::vector<AcpiTable>> build_acpi_tables(const AcpiConfig& config,
                                                       devices::GuestAddress base);

// Builds and copies them to kAcpiAddress; returns the address of the RSDP. Besides the errors of
// build_acpi_tables(), kInvalidArgument when they do not fit there.
loop::Result<devices::GuestAddress> write_acpi_tables(const AcpiConfig& config,
                                                      const devices::GuestMemory& memory);

}  // namespace skiff::firmware
