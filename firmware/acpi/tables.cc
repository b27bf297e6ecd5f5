// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/acpi/tables.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/acpi/dsdt.h"
#include "firmware/bytes.h"
#include "firmware/layout.h"
#include "loop/result.h"

namespace skiff::firmware {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr size_t kChecksumOffset = 9;
constexpr size_t kTableAlignment = 64;  // What the FACS asks for; the others ask for less.
constexpr size_t kMaxNumbered = 0x1000;

// A table under construction: fields are appended in the order of the specification.
class TableWriter {
 public:
  TableWriter() = default;
  // 5.2.6 "System Description Table Header"; the length and checksum come in finish().
  TableWriter(std::string_view signature, uint8_t revision) {
    text(signature).u32(0).u8(revision).u8(0).text("SKIFF ").text("SKIFFVMM").u32(1);
    text("SKIF").u32(1);
  }

  TableWriter& u8(uint64_t value) { return number(value, 1); }
  TableWriter& u16(uint64_t value) { return number(value, 2); }
  TableWriter& u32(uint64_t value) { return number(value, 4); }
  TableWriter& u64(uint64_t value) { return number(value, 8); }
  TableWriter& zeros(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  TableWriter& text(std::string_view text) {
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  TableWriter& raw(std::span<const uint8_t> bytes) {
    const auto copy = std::as_bytes(bytes);
    bytes_.insert(bytes_.end(), copy.begin(), copy.end());
    return *this;
  }
  // 5.2.3.2 "Generic Address Structure", for a port. An unused one is all zeroes.
  TableWriter& port(uint16_t address, uint8_t size_bytes) {
    return port(address, size_bytes, static_cast<uint8_t>(size_bytes == 4 ? 3 : size_bytes));
  }
  TableWriter& port(uint16_t address, uint8_t size_bytes, uint8_t access) {
    constexpr uint8_t kSystemIo = 1;
    return u8(kSystemIo).u8(uint64_t{size_bytes} * 8).u8(0).u8(access).u64(address);
  }

  size_t size() const { return bytes_.size(); }
  std::vector<std::byte> take() { return std::move(bytes_); }
  // Fills in the length and the checksum of a table with a standard header.
  std::vector<std::byte> finish() {
    const auto length = static_cast<uint32_t>(bytes_.size());
    std::memcpy(&bytes_[4], &length, sizeof(length));
    set_checksum(kChecksumOffset, bytes_.size());
    return take();
  }
  void set_checksum(size_t offset, size_t size_bytes) {
    uint8_t sum = 0;
    for (size_t i = 0; i < size_bytes; ++i)
      sum = static_cast<uint8_t>(sum + std::to_integer<uint8_t>(bytes_[i]));
    bytes_[offset] = static_cast<std::byte>(std::to_integer<uint8_t>(bytes_[offset]) - sum);
  }

 private:
  TableWriter& number(uint64_t value, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; ++i)
      bytes_.push_back(static_cast<std::byte>(value >> (8 * i) & 0xff));
    return *this;
  }
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> build_dsdt(const AcpiConfig& config) {
  TableWriter table("DSDT", 2);
  table.raw(build_dsdt_aml(config));
  return table.finish();
}

// 5.2.10 "Firmware ACPI Control Structure": only the global lock is of any use, and it is free.
std::vector<std::byte> build_facs() {
  constexpr uint32_t kFacsBytes = 64;
  TableWriter table;
  table.text("FACS").u32(kFacsBytes).zeros(24).u8(2).zeros(31);
  return table.take();
}

uint16_t boot_architecture(const AcpiConfig& config) {
  constexpr uint16_t kLegacyDevices = 1U << 0;
  constexpr uint16_t k8042 = 1U << 1;
  constexpr uint16_t kNoVga = 1U << 2;
  constexpr uint16_t kNoRtc = 1U << 5;
  return static_cast<uint16_t>(kLegacyDevices | kNoVga | (config.has_i8042 ? k8042 : 0) |
                               (config.has_rtc ? 0 : kNoRtc));
}

// 5.2.9 "Fixed ACPI Description Table".
std::vector<std::byte> build_fadt(const AcpiConfig& config, uint64_t facs, uint64_t dsdt) {
  constexpr uint8_t kMinorRevision = 5;
  constexpr uint8_t kProfileEnterpriseServer = 4;
  constexpr uint8_t kCenturyRegister = 0x32;
  constexpr uint16_t kNoC2 = 101;  // A latency above 100 us says that there is none.
  constexpr uint16_t kNoC3 = 1001;
  constexpr uint32_t kWbinvd = 1U << 0;
  constexpr uint32_t kC1 = 1U << 2;
  constexpr uint32_t kNoFixedSleepButton = 1U << 5;
  constexpr uint32_t kNoFixedRtcWake = 1U << 6;
  constexpr uint32_t kResetRegister = 1U << 10;
  constexpr uint8_t kGpeBytes = 4;
  constexpr uint8_t kByteAccess = 1;

  TableWriter table("FACP", 6);
  table.u32(facs).u32(dsdt).u8(0).u8(kProfileEnterpriseServer).u16(config.sci_irq);
  table.u32(0).zeros(4);  // SMI_CMD 0: always in ACPI mode.
  table.u32(config.pm1a_event_port).u32(0).u32(config.pm1a_control_port).u32(0);
  table.u32(0).u32(config.pm_timer_port).u32(config.gpe0_port).u32(0);
  table.u8(4).u8(2).u8(0).u8(4).u8(kGpeBytes).u8(0).u8(0).u8(0);
  table.u16(kNoC2).u16(kNoC3).zeros(8);
  table.u8(config.has_rtc ? kCenturyRegister : 0).u16(boot_architecture(config)).u8(0);
  table.u32(kWbinvd | kC1 | kNoFixedSleepButton | kNoFixedRtcWake | kResetRegister);
  table.port(config.reset_port, 1).u8(config.reset_value).u16(0).u8(kMinorRevision);
  table.u64(0).u64(dsdt);  // The FACS is given in 32 bits: only one of the two may be set.
  table.port(config.pm1a_event_port, 4).zeros(12).port(config.pm1a_control_port, 2).zeros(12);
  table.zeros(12).port(config.pm_timer_port, 4).port(config.gpe0_port, kGpeBytes, kByteAccess);
  table.zeros(12).zeros(12).zeros(12);
  table.text("SKIFFVMM");
  return table.finish();
}

// 5.2.12 "Multiple APIC Description Table".
std::vector<std::byte> build_madt(const AcpiConfig& config) {
  constexpr uint32_t kPcatCompatible = 1;
  constexpr uint32_t kEnabled = 1;
  constexpr uint32_t kFirstX2ApicId = 255;
  constexpr uint16_t kConforms = 0;
  constexpr uint16_t kLevelActiveHigh = 0xd;
  constexpr uint8_t kAllProcessors = 0xff;
  constexpr uint8_t kPitIrq = 0;
  constexpr uint32_t kPitGsi = 2;
  constexpr uint8_t kNmiLint = 1;

  TableWriter table("APIC", 5);
  table.u32(config.local_apic_address).u32(kPcatCompatible);
  bool has_x2apic = false;
  for (size_t uid = 0; uid < config.apic_ids.size(); ++uid) {
    const uint32_t id = config.apic_ids[uid];
    if (id < kFirstX2ApicId) {
      table.u8(0).u8(8).u8(uid).u8(id).u32(kEnabled);
    } else {
      table.u8(9).u8(16).u16(0).u32(id).u32(kEnabled).u32(uid);
      has_x2apic = true;
    }
  }
  table.u8(1).u8(12).u8(config.ioapic_id).u8(0).u32(config.ioapic_address).u32(0);
  table.u8(2).u8(10).u8(0).u8(kPitIrq).u32(kPitGsi).u16(kConforms);
  table.u8(2).u8(10).u8(0).u8(config.sci_irq).u32(config.sci_irq).u16(kLevelActiveHigh);
  table.u8(4).u8(6).u8(kAllProcessors).u16(kConforms).u8(kNmiLint);
  if (has_x2apic) table.u8(10).u8(12).u16(kConforms).u32(UINT32_MAX).u8(kNmiLint).zeros(3);
  return table.finish();
}

// PCI Firmware Specification 3.3, 4.1.2 "MCFG Table Description".
std::vector<std::byte> build_mcfg(const AcpiPciHost& pci) {
  TableWriter table("MCFG", 1);
  table.zeros(8);
  table.u64(pci.ecam_base).u16(0).u8(0).u8(static_cast<uint64_t>(pci.bus_count) - 1).u32(0);
  return table.finish();
}

std::vector<std::byte> build_xsdt(std::span<const AcpiTable> tables) {
  TableWriter table("XSDT", 1);
  for (const AcpiTable& entry : tables) {
    // These two are found through the FADT.
    if (entry.signature != "DSDT" && entry.signature != "FACS") table.u64(entry.address.value);
  }
  return table.finish();
}

// 5.2.5.3 "Root System Description Pointer (RSDP) Structure".
std::vector<std::byte> build_rsdp(uint64_t xsdt) {
  constexpr size_t kFirstPartBytes = 20;
  constexpr size_t kExtendedChecksumOffset = 32;
  constexpr uint32_t kRsdpBytes = 36;
  TableWriter table;
  table.text("RSD PTR ").u8(0).text("SKIFF ").u8(2).u32(0).u32(kRsdpBytes).u64(xsdt).zeros(4);
  table.set_checksum(8, kFirstPartBytes);
  table.set_checksum(kExtendedChecksumOffset, kRsdpBytes);
  return table.take();
}

Error refused(const std::string& what) {
  return {ErrorKind::kInvalidArgument, "The machine cannot be described in ACPI: " + what};
}

Result<void> check_pci(const AcpiPciHost& pci) {
  constexpr uint64_t kBusBytes = uint64_t{1} << 20;
  if (pci.bus_count == 0 || pci.bus_count > 256)
    return refused(std::to_string(pci.bus_count) + " PCI buses, 1 to 256 are possible");
  if (pci.ecam_bytes != pci.bus_count * kBusBytes || !checked_add(pci.ecam_base, pci.ecam_bytes))
    return refused("the ECAM has " + size_text(pci.ecam_bytes) + " at " + hex(pci.ecam_base) +
                   ", 1 MiB for each of " + std::to_string(pci.bus_count) + " buses is needed");
  for (const AcpiIoWindow& window : pci.io_windows) {
    if (window.length == 0 || window.length > 0x10000U - window.base)
      return refused("the I/O window at " + hex(window.base) + " is empty or leaves 16 bits");
  }
  const auto end32 = checked_add(pci.memory32.base, pci.memory32.size_bytes);
  if (!end32 || *end32 > uint64_t{1} << 32)
    return refused("the 32-bit PCI window at " + hex(pci.memory32.base) + " leaves 32 bits");
  if (!checked_add(pci.memory64.base, pci.memory64.size_bytes))
    return refused("the 64-bit PCI window at " + hex(pci.memory64.base) + " leaves 64 bits");
  if (pci.hotplug && ((pci.hotplug->slots & 1) != 0 || pci.hotplug->event >= 10))
    return refused("PCI slot 0 cannot be plugged, and the event is one of 0 to 9");
  return {};
}

Result<void> check_config(const AcpiConfig& config) {
  if (config.apic_ids.empty() || config.apic_ids.size() > kMaxNumbered)
    return refused(std::to_string(config.apic_ids.size()) + " vCPUs, 1 to 4096 are possible");
  if (std::ranges::adjacent_find(config.apic_ids, std::ranges::greater_equal()) !=
      config.apic_ids.end())
    return refused("the APIC ids of the vCPUs do not ascend");
  // An MADT entry gives it 32 bits.
  if (config.local_apic_address > UINT32_MAX) return refused("the local APIC is above 4 GiB");
  if (config.uarts.size() > 9) return refused("more than 9 serial ports");
  for (const AcpiUart& uart : config.uarts) {
    if (uart.irq > 15) return refused("a serial port with IRQ " + std::to_string(uart.irq));
  }
  if (config.virtio_mmio.size() > kMaxNumbered)
    return refused("more than 4096 virtio-mmio devices");
  for (const AcpiVirtioMmio& device : config.virtio_mmio) {
    const auto end = checked_add(device.base, device.size_bytes);
    if (device.size_bytes == 0 || !end || *end > UINT32_MAX)
      return refused("the virtio-mmio device at " + hex(device.base) +
                     " is empty or not below 4 GiB");
  }
  if (config.pci) SKIFF_RETURN_IF_ERROR(check_pci(*config.pci));
  return {};
}

}  // namespace

Result<std::vector<AcpiTable>> build_acpi_tables(const AcpiConfig& config,
                                                 devices::GuestAddress base) {
  SKIFF_RETURN_IF_ERROR(check_config(config));
  std::vector<AcpiTable> tables;
  uint64_t next = base.value + kTableAlignment;  // Behind the RSDP, which is made last.
  const auto add = [&](std::string signature, std::vector<std::byte> bytes) {
    const uint64_t address = next;
    next = align_down(next + bytes.size() + kTableAlignment - 1, kTableAlignment);
    tables.push_back({std::move(signature), {address}, std::move(bytes)});
    return address;
  };
  const uint64_t facs = add("FACS", build_facs());
  const uint64_t dsdt = add("DSDT", build_dsdt(config));
  add("FACP", build_fadt(config, facs, dsdt));
  add("APIC", build_madt(config));
  if (config.pci) add("MCFG", build_mcfg(*config.pci));
  const uint64_t xsdt = add("XSDT", build_xsdt(tables));
  tables.insert(tables.begin(), {"RSD PTR ", base, build_rsdp(xsdt)});
  return tables;
}

Result<devices::GuestAddress> write_acpi_tables(const AcpiConfig& config,
                                                const devices::GuestMemory& memory) {
  const auto tables = build_acpi_tables(config, kAcpiAddress);
  if (!tables) return tables.error();
  const AcpiTable& last = *std::ranges::max_element(*tables, {}, &AcpiTable::address);
  const uint64_t size_bytes = last.address.value + last.bytes.size() - kAcpiAddress.value;
  if (size_bytes > kAcpiBytes)
    return refused("its tables have " + size_text(size_bytes) + ", there is room for " +
                   size_text(kAcpiBytes) + ": use fewer vCPUs or devices");
  for (const AcpiTable& table : *tables) {
    if (!memory.write(table.address, table.bytes))
      return Error(ErrorKind::kInvalidArgument,
                   "The guest's memory does not reach 1 MiB: the ACPI tables have no place");
  }
  return kAcpiAddress;
}

}  // namespace skiff::firmware
