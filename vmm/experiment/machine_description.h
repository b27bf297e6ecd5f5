// SPDX-License-Identifier: GPL-2.0-or-later
// Where something was measured, in words that a reader needs to judge the numbers.
//
// Thread: any that may block for a few hundred milliseconds. Ownership: values.
#pragma once

#include <string>
#include <vector>

#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {

// CPU, cores, memory, kernel, KVM, governor, clock, versions; and of each of `paths` the file
// system.
MachineFacts describe_machine(const std::string& skiff_version,
                              const std::vector<std::string>& paths);

// "ext4 on /dev/vda1" for where `path` is, by this text of /proc/self/mounts.
std::string file_system_of(const std::string& path, const std::string& mounts);

}  // namespace skiff::vmm
