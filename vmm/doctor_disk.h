// SPDX-License-Identifier: GPL-2.0-or-later
// The doctor's look at a disk: what each engine makes of it, and what engine=auto begins with.
//
// Thread: any that may block. Ownership: values.
#pragma once

#include <string>

#include "block/file_device.h"
#include "block/probe.h"
#include "loop/result.h"

namespace skiff::vmm {

// What `skiff doctor --disk` prints: what the file can do, a line for each engine, the choice.
std::string disk_finding_text(const block::DiskFinding& finding);

// Opens `path`, also null:..., for reading only and tries the engines on it. Errors as
// FileDevice::open().
loop::Result<block::DiskFinding> examine_disk(const std::string& path, block::DirectIo direct);

}  // namespace skiff::vmm
