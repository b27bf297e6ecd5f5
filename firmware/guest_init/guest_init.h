// SPDX-License-Identifier: GPL-2.0-or-later
// The guest's init as a program file, carried inside Skiff.
//
// Thread: any; constant.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace skiff::firmware {

std::span<const std::byte> guest_init_program();

// A cpio archive that holds it at guest_protocol::kInitPath, to be put behind an initrd.
std::vector<std::byte> guest_init_archive();

}  // namespace skiff::firmware
