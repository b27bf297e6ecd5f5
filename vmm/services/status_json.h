// SPDX-License-Identifier: GPL-2.0-or-later
// What the control command "status" says of disks, as JSON.
//
// Thread: any; pure functions. Ownership: none.
#pragma once

#include <nlohmann/json.hpp>

#include "vmm/disk_activity.h"

namespace skiff::vmm {

// "submit", "queues", "latency" and "stages", added to what `json` has; nothing without queues.
void add_activity(nlohmann::json& json, const DiskActivity& activity);

}  // namespace skiff::vmm
