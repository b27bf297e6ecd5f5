// SPDX-License-Identifier: GPL-2.0-or-later
// How fast this host's time stamp counter runs: a guest that has no clock of its own is told.
//
// Thread: any; measured once in a process, which takes 50 ms.
#pragma once

#include <cstdint>

namespace skiff::vmm {

uint64_t tsc_khz();

}  // namespace skiff::vmm
