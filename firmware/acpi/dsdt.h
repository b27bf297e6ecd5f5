// SPDX-License-Identifier: GPL-2.0-or-later
// The DSDT's definition block: the devices that a guest cannot find by itself.
//
// Thread: any; a pure function. Ownership: values.
#pragma once

#include <cstdint>
#include <vector>

#include "firmware/acpi/tables.h"

namespace skiff::firmware {

// The AML behind the table's header. The configuration has been checked by build_acpi_tables().
std::vector<uint8_t> build_dsdt_aml(const AcpiConfig& config);

}  // namespace skiff::firmware
