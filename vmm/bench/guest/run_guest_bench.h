// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff bench guest` from its options to its exit status.
//
// Thread: the main thread; blocks until the end. Ownership: none.
#pragma once

#include "vmm/bench/guest/guest_options.h"

namespace skiff::vmm {

// 0; kExitUsage when nothing could be measured for a reason that was known before; 1 when a guest
// or the disk failed.
int run_guest_bench(const GuestBenchOptions& options);

}  // namespace skiff::vmm
