// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff bench queues` from its options to its exit status.
//
// Thread: the main thread; blocks until the end. Ownership: none.
#pragma once

#include "vmm/bench/queues_options.h"

namespace skiff::vmm {

// 0; kExitUsage when nothing could be measured for a reason that was known before; 1 when a device
// failed.
int run_queues_bench(const QueuesBenchOptions& options);

}  // namespace skiff::vmm
