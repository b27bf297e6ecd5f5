// SPDX-License-Identifier: GPL-2.0-or-later
// The JSON form of the machine's options: the same names as on the command line.
//
//   {"kernel": "vmlinuz", "cpus": {"count": 4, "sockets": 2}, "memory": "2G", "rng": true,
//    "disk": [{"path": "root.img", "readonly": true}, "path=data.img"]}
//
// Thread: any; pure functions, but for reading the file.
#pragma once

#include <string>
#include <string_view>

#include "loop/result.h"
#include "vmm/config/machine_config.h"

namespace skiff::vmm {

// Applies a file's options to `config`. Errors name the file, the key, the value and what is
// allowed.
loop::Result<void> apply_config_file(MachineConfig& config, const std::string& path);
loop::Result<void> apply_config_text(MachineConfig& config, std::string_view json);

}  // namespace skiff::vmm
