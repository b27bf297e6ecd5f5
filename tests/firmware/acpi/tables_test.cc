// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/acpi/tables.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <ios>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "firmware/acpi/resources.h"
#include "firmware/bytes.h"
#include "firmware/layout.h"
#include "tests/temp_dir.h"

namespace skiff::firmware {
namespace {

using ::testing::HasSubstr;

AcpiConfig full_config() {
  AcpiConfig config;
  config.apic_ids = {0, 1, 2, 5, 300};
  config.pci = AcpiPciHost{.ecam_base = 0xe0000000,
                           .ecam_bytes = 256 << 20,
                           .memory32 = {0xc0000000, 0x20000000},
                           .memory64 = {uint64_t{1} << 38, uint64_t{1} << 36},
                           .hotplug = AcpiPciHotplug{.slots = 0xffff'fff6}};
  config.uarts = {{0x3f8, 4}, {0x2f8, 3}};
  config.pvpanic_port = 0x505;
  config.virtio_mmio = {{0xd0000000, 0x1000, 5, Trigger::kEdge},
                        {0xd0001000, 0x1000, 6, Trigger::kLevel}};
  return config;
}

const AcpiTable& find(const std::vector<AcpiTable>& tables, const std::string& signature) {
  const auto found = std::ranges::find(tables, signature, &AcpiTable::signature);
  EXPECT_NE(found, tables.end()) << signature;
  return *found;
}

uint8_t sum_of(std::span<const std::byte> bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), uint8_t{0}, [](uint8_t sum, std::byte byte) {
    return static_cast<uint8_t>(sum + std::to_integer<uint8_t>(byte));
  });
}

template <typename T>
T at(const AcpiTable& table, uint64_t offset) {
  return *read_record<T>(table.bytes, offset);
}

class AcpiTablesTest : public ::testing::Test {
 protected:
  std::string error_with(const std::function<void(AcpiConfig&)>& change) {
    AcpiConfig config = full_config();
    change(config);
    const auto tables = build_acpi_tables(config, kAcpiAddress);
    return tables ? "" : tables.error().message();
  }
  const std::vector<AcpiTable> tables_ = *build_acpi_tables(full_config(), kAcpiAddress);
};

TEST_F(AcpiTablesTest, EveryTableSumsToZeroAndKnowsItsLength) {
  for (const AcpiTable& table : tables_) {
    if (table.signature == "FACS") continue;  // Has no checksum.
    EXPECT_EQ(sum_of(table.bytes), 0) << table.signature;
    if (table.signature != "RSD PTR ") {
      EXPECT_EQ(at<uint32_t>(table, 4), table.bytes.size());
    }
  }
  EXPECT_EQ(sum_of(std::span(find(tables_, "RSD PTR ").bytes).first(20)), 0);
}

TEST_F(AcpiTablesTest, TablesAreAlignedAndDoNotOverlap) {
  std::vector<AcpiTable> sorted = tables_;
  std::ranges::sort(sorted, {}, &AcpiTable::address);
  EXPECT_EQ(sorted.front().signature, "RSD PTR ");
  for (size_t i = 0; i < sorted.size(); ++i) {
    EXPECT_EQ(sorted[i].address.value % 64, 0u);
    if (i > 0) {
      EXPECT_LE(sorted[i - 1].address.value + sorted[i - 1].bytes.size(), sorted[i].address.value);
    }
  }
}

TEST_F(AcpiTablesTest, TablesLeadToEachOther) {
  EXPECT_EQ(at<uint64_t>(find(tables_, "RSD PTR "), 24), find(tables_, "XSDT").address.value);
  const AcpiTable& xsdt = find(tables_, "XSDT");
  ASSERT_EQ(xsdt.bytes.size(), 36u + 3 * 8);
  EXPECT_EQ(at<uint64_t>(xsdt, 36), find(tables_, "FACP").address.value);
  EXPECT_EQ(at<uint64_t>(xsdt, 44), find(tables_, "APIC").address.value);
  EXPECT_EQ(at<uint64_t>(xsdt, 52), find(tables_, "MCFG").address.value);
  EXPECT_EQ(at<uint64_t>(find(tables_, "FACP"), 140), find(tables_, "DSDT").address.value);
  EXPECT_EQ(at<uint32_t>(find(tables_, "FACP"), 36), find(tables_, "FACS").address.value);
}

TEST_F(AcpiTablesTest, FadtHasThePortsWhereTheSpecificationPutsThem) {
  const AcpiTable& fadt = find(tables_, "FACP");
  EXPECT_EQ(fadt.bytes.size(), 276u);
  EXPECT_EQ(at<uint16_t>(fadt, 46), 9);
  EXPECT_EQ(at<uint32_t>(fadt, 48), 0u);
  EXPECT_EQ(at<uint32_t>(fadt, 56), 0x600u);
  EXPECT_EQ(at<uint32_t>(fadt, 64), 0x604u);
  EXPECT_EQ(at<uint32_t>(fadt, 76), 0x608u);
  EXPECT_EQ(at<uint8_t>(fadt, 108), 0x32);
  EXPECT_EQ(at<uint16_t>(fadt, 109), 0x7);
  EXPECT_EQ(at<uint32_t>(fadt, 112) & 1U << 10, 1U << 10);
  EXPECT_EQ(at<uint64_t>(fadt, 116 + 4), 0xcf9u);
  EXPECT_EQ(at<uint8_t>(fadt, 128), 6);
  EXPECT_EQ(at<uint64_t>(fadt, 148 + 4), 0x600u);
  EXPECT_EQ(at<uint64_t>(fadt, 172 + 4), 0x604u);
  EXPECT_EQ(at<uint64_t>(fadt, 208 + 4), 0x608u);
  EXPECT_EQ(at<uint32_t>(fadt, 80), 0x60cu);  // GPE0_BLK, its length, and X_GPE0_BLK.
  EXPECT_EQ(at<uint8_t>(fadt, 92), 4);
  EXPECT_EQ(at<uint8_t>(fadt, 220 + 1), 32);
  EXPECT_EQ(at<uint64_t>(fadt, 220 + 4), 0x60cu);
}

TEST_F(AcpiTablesTest, MissingLegacyDevicesAreSaid) {
  AcpiConfig config = full_config();
  config.has_i8042 = config.has_rtc = false;
  const auto tables = build_acpi_tables(config, kAcpiAddress);
  EXPECT_EQ(at<uint16_t>(find(*tables, "FACP"), 109), 0x25);
  EXPECT_EQ(at<uint8_t>(find(*tables, "FACP"), 108), 0);
}

TEST_F(AcpiTablesTest, MachineWithoutPciHasNoMcfg) {
  AcpiConfig config = full_config();
  config.pci.reset();
  const auto tables = build_acpi_tables(config, kAcpiAddress);
  EXPECT_EQ(std::ranges::find(*tables, "MCFG", &AcpiTable::signature), tables->end());
}

TEST_F(AcpiTablesTest, ImpossibleMachinesAreRefused) {
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.apic_ids.clear(); }), HasSubstr("0 vCPUs"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.apic_ids = {1, 1}; }), HasSubstr("ascend"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.pci->bus_count = 257; }), HasSubstr("257"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.pci->ecam_bytes = 1; }), HasSubstr("ECAM"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.pci->memory32.base = 0xf0000000; }),
              HasSubstr("32-bit PCI window"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.pci->memory64.size_bytes = UINT64_MAX; }),
              HasSubstr("64-bit PCI window"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.pci->io_windows = {{0xd00, 0xf301}}; }),
              HasSubstr("I/O window"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.pci->hotplug->slots = 1; }), HasSubstr("slot 0"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.uarts[0].irq = 16; }), HasSubstr("IRQ 16"));
  EXPECT_THAT(error_with([](AcpiConfig& c) { c.virtio_mmio[0].base = uint64_t{1} << 32; }),
              HasSubstr("virtio-mmio"));
}

TEST_F(AcpiTablesTest, TwoHundredFiftyFiveCpusFitIntoTheirArea) {
  std::vector<std::byte> ram(1 << 20);
  const devices::GuestMemory memory({{.base = {0}, .host = ram.data(), .size_bytes = ram.size()}});
  AcpiConfig config = full_config();
  config.apic_ids.resize(255);
  std::iota(config.apic_ids.begin(), config.apic_ids.end(), 0);
  const auto rsdp = write_acpi_tables(config, memory);
  ASSERT_TRUE(rsdp) << rsdp.error().message();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(ram.data() + rsdp->value), 8), "RSD PTR ");
  config.apic_ids.resize(4096);
  std::iota(config.apic_ids.begin(), config.apic_ids.end(), 0);
  const auto refused = write_acpi_tables(config, memory);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("use fewer vCPUs"));
}

TEST_F(AcpiTablesTest, MemoryBelowOneMibIsRefused) {
  std::vector<std::byte> ram(0x1000);
  const devices::GuestMemory memory({{.base = {0}, .host = ram.data(), .size_bytes = ram.size()}});
  EXPECT_FALSE(write_acpi_tables(full_config(), memory));
}

// ACPICA's compiler reads what we wrote, and compiles its own reading without an error.
class IaslTest : public AcpiTablesTest {
 protected:
  void SetUp() override {
    if (std::system("command -v iasl >/dev/null") != 0) GTEST_SKIP() << "iasl is not installed";
  }

  // Disassembles and compiles again; the source text, or an empty string with a test failure.
  std::string round_trip(const AcpiTable& table) {
    const std::string stem = directory_.path(table.signature);
    std::ofstream(stem + ".dat", std::ios::binary)
        .write(reinterpret_cast<const char*>(table.bytes.data()),
               static_cast<std::streamsize>(table.bytes.size()));
    const std::string log = stem + ".log";
    const auto run = [&](const std::string& arguments) {
      const int status = std::system(("iasl " + arguments + " >>" + log + " 2>&1").c_str());
      EXPECT_EQ(status, 0) << arguments << '\n' << read(log);
    };
    run("-d " + stem + ".dat");
    run("-we -p " + stem + ".again " + stem + ".dsl");
    EXPECT_THAT(read(log), HasSubstr(" 0 Errors")) << table.signature;
    return read(stem + ".dsl");
  }
  static std::string read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  TempDir directory_;
};

TEST_F(IaslTest, DsdtNamesEveryDevice) {
  const std::string source = round_trip(find(tables_, "DSDT"));
  for (const char* text : {"Device (PCI0)",
                           "PNP0A08",
                           "PNP0A03",
                           "Method (_OSC, 4",
                           "Device (MB00)",
                           "PNP0C02",
                           "Device (COM1)",
                           "Device (COM2)",
                           "0x02F8",
                           "Device (RTC0)",
                           "Device (KBD0)",
                           "Device (PEVT)",
                           "QEMU0001",
                           "0x0505",
                           "Device (V001)",
                           "LNRO0005",
                           "Device (C004)",
                           "ACPI0007",
                           "Name (\\_S5",
                           "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive",
                           "Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive",
                           "QWordMemory",
                           "33db4d5b-1ff7-401c-9657-7441c03dd766"})
    EXPECT_THAT(source, HasSubstr(text));
}

TEST_F(IaslTest, DsdtLetsDevicesComeAndGoInTheSlotsItNames) {
  const std::string source = round_trip(find(tables_, "DSDT"));
  for (const char* text :
       {"OperationRegion (PHPR, SystemIO, 0x0620, 0x10)", "PHCK,   32", "PHGO,   32",
        "Device (S001)", "Name (_ADR, 0x00010000)", "Name (_SUN, One)",
        "Method (_EJ0, 1, NotSerialized)", "PHEJ = 0x80000000", "Device (S01F)",
        "Name (_ADR, 0x001F0000)", "Notify (PCI0, Zero)", "Notify (S002, One)",
        "Notify (S01F, 0x03)", "Scope (\\_GPE)", "Method (_E01, 0, NotSerialized)",
        "\\_SB.PCI0.PHEV ()"})
    EXPECT_THAT(source, HasSubstr(text));
  // Its device stays.
  EXPECT_THAT(source, ::testing::Not(HasSubstr("Device (S003)")));
}

TEST_F(IaslTest, FixedTablesReadAsMeant) {
  EXPECT_THAT(round_trip(find(tables_, "FACP")), HasSubstr("Reset Register Supported (V2) : 1"));
  const std::string madt = round_trip(find(tables_, "APIC"));
  EXPECT_THAT(madt, HasSubstr("[Processor Local x2APIC]"));
  EXPECT_THAT(madt, HasSubstr("[Interrupt Source Override]"));
  EXPECT_THAT(madt, HasSubstr("[Local APIC NMI]"));
  EXPECT_THAT(round_trip(find(tables_, "MCFG")), HasSubstr("Base Address : 00000000E0000000"));
  EXPECT_THAT(round_trip(find(tables_, "FACS")), HasSubstr("Global Lock : 00000000"));
  EXPECT_THAT(round_trip(find(tables_, "XSDT")), HasSubstr("ACPI Table Address   2"));
}

}  // namespace
}  // namespace skiff::firmware
