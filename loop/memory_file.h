// SPDX-License-Identifier: GPL-2.0-or-later
// Memory files: memory that is shared with other processes by handing them a descriptor.
//
// Thread: any. Ownership: the caller's.
#pragma once

#include <cstdint>
#include <string>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

// Zeroed memory of this size, which nobody can make shorter or longer.
Result<UniqueFd> create_sealed_memory(const std::string& name, uint64_t size_bytes);

}  // namespace skiff::loop
