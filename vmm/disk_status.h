// SPDX-License-Identifier: GPL-2.0-or-later
// DiskStatus: what people and scripts get to know about a disk in use.
//
// Thread: any; values. Ownership: none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "vmm/disk_activity.h"
#include "vmm/disk_removal.h"

namespace skiff::vmm {

struct DiskStatus {
  std::string name;  // "disk0".
  std::string path;
  std::string serial;
  uint64_t size_bytes = 0;
  bool is_read_only = false;
  std::optional<DiskPlug> pci;  // Nothing: it has bus=mmio.
  DiskActivity activity = {};
};

}  // namespace skiff::vmm
