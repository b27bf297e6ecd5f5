// SPDX-License-Identifier: GPL-2.0-or-later
// Resource descriptors for _CRS (ACPI 6.5, 6.4 "Resource Data Types for ACPI").
//
// Thread: any; values. Ownership: each term owns its bytes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "firmware/acpi/aml.h"

namespace skiff::firmware {

enum class Trigger { kEdge, kLevel };

// A buffer of descriptors with the end tag.
Aml aml_resources(std::span<const Aml> descriptors);
inline Aml aml_resources(std::initializer_list<Aml> descriptors) {
  return aml_resources(std::span(descriptors.begin(), descriptors.size()));
}

// What a device uses itself.
Aml aml_io(uint16_t port, uint8_t length);
Aml aml_isa_irq(uint8_t irq);  // Edge, active high: IRQNoFlags.
Aml aml_memory32(uint32_t base, uint32_t size_bytes);
Aml aml_interrupt(uint32_t gsi, Trigger trigger);  // Active high, exclusive.

// What a bridge passes on to those behind it. Sizes are not 0.
Aml aml_bus_numbers(uint8_t first, uint8_t last);
Aml aml_io_window(uint16_t base, uint32_t length);
Aml aml_memory32_window(uint32_t base, uint64_t size_bytes);
Aml aml_memory64_window(uint64_t base, uint64_t size_bytes);

}  // namespace skiff::firmware
