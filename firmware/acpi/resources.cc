// SPDX-License-Identifier: GPL-2.0-or-later
#include "firmware/acpi/resources.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "firmware/acpi/aml.h"

namespace skiff::firmware {
namespace {

// Tags: small ones hold their length in the lower three bits, large ones in the next two bytes.
constexpr uint8_t kIrqNoFlagsTag = 0x22;
constexpr uint8_t kIoTag = 0x47;
constexpr uint8_t kEndTag = 0x79;
constexpr uint8_t kMemory32FixedTag = 0x86;
constexpr uint8_t kDWordTag = 0x87;
constexpr uint8_t kWordTag = 0x88;
constexpr uint8_t kExtendedInterruptTag = 0x89;
constexpr uint8_t kQWordTag = 0x8a;

constexpr uint8_t kReadWrite = 1;
constexpr uint8_t kDecode16 = 1;
constexpr uint8_t kConsumer = 1;
constexpr uint8_t kEdge = 2;

// 6.4.3.5 "Address Space Resource Descriptors".
enum class Space : uint8_t { kMemory = 0, kIo = 1, kBus = 2 };
constexpr uint8_t kMinAndMaxFixed = 0x0c;
constexpr uint8_t kEntireIoRange = 3;

void put(std::vector<uint8_t>& bytes, uint64_t value, size_t size_bytes) {
  for (size_t i = 0; i < size_bytes; ++i) bytes.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

uint8_t type_flags(Space space) {
  switch (space) {
    case Space::kMemory:
      return kReadWrite;
    case Space::kIo:
      return kEntireIoRange;
    case Space::kBus:
      return 0;
  }
  return 0;
}

// The tag says how wide the fields are.
Aml window(uint8_t tag, Space space, uint64_t base, uint64_t size_bytes) {
  const size_t width_bytes = tag == kWordTag ? 2 : tag == kDWordTag ? 4 : 8;
  std::vector<uint8_t> bytes = {tag};
  put(bytes, 3 + 5 * width_bytes, 2);
  bytes.push_back(static_cast<uint8_t>(space));
  bytes.push_back(kMinAndMaxFixed);
  bytes.push_back(type_flags(space));
  put(bytes, 0, width_bytes);  // Granularity.
  put(bytes, base, width_bytes);
  put(bytes, base + (size_bytes - 1), width_bytes);
  put(bytes, 0, width_bytes);  // Translation.
  put(bytes, size_bytes, width_bytes);
  return Aml(std::move(bytes));
}

}  // namespace

Aml aml_resources(std::span<const Aml> descriptors) {
  std::vector<uint8_t> bytes;
  for (const Aml& descriptor : descriptors)
    bytes.insert(bytes.end(), descriptor.bytes().begin(), descriptor.bytes().end());
  bytes.push_back(kEndTag);
  bytes.push_back(0);  // A checksum of 0 counts as right.
  return aml_buffer(bytes);
}

Aml aml_io(uint16_t port, uint8_t length) {
  std::vector<uint8_t> bytes = {kIoTag, kDecode16};
  put(bytes, port, 2);
  put(bytes, port, 2);
  bytes.push_back(1);  // Alignment.
  bytes.push_back(length);
  return Aml(std::move(bytes));
}

Aml aml_isa_irq(uint8_t irq) {
  std::vector<uint8_t> bytes = {kIrqNoFlagsTag};
  put(bytes, uint64_t{1} << irq, 2);
  return Aml(std::move(bytes));
}

Aml aml_memory32(uint32_t base, uint32_t size_bytes) {
  std::vector<uint8_t> bytes = {kMemory32FixedTag, 9, 0, kReadWrite};
  put(bytes, base, 4);
  put(bytes, size_bytes, 4);
  return Aml(std::move(bytes));
}

Aml aml_interrupt(uint32_t gsi, Trigger trigger) {
  const uint8_t flags = trigger == Trigger::kEdge ? kConsumer | kEdge : kConsumer;
  std::vector<uint8_t> bytes = {kExtendedInterruptTag, 6, 0, flags, 1};
  put(bytes, gsi, 4);
  return Aml(std::move(bytes));
}

Aml aml_bus_numbers(uint8_t first, uint8_t last) {
  return window(kWordTag, Space::kBus, first, uint64_t{last} - first + 1);
}

Aml aml_io_window(uint16_t base, uint32_t length) {
  return window(kWordTag, Space::kIo, base, length);
}

Aml aml_memory32_window(uint32_t base, uint64_t size_bytes) {
  return window(kDWordTag, Space::kMemory, base, size_bytes);
}

Aml aml_memory64_window(uint64_t base, uint64_t size_bytes) {
  return window(kQWordTag, Space::kMemory, base, size_bytes);
}

}  // namespace skiff::firmware
