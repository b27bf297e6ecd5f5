// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff bench disk` from parsed options to exit status.
//
// Thread: the main thread, with the signals of SignalWatch blocked. Ownership: none.
#pragma once

#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

// Results on stdout, progress and errors on stderr. 0; kExitUsage when it could not start; 1 when
// the disk failed; kExitStopped after a signal, with the results so far. A second signal ends it at
// once.
int run_disk_bench(const DiskBenchOptions& options);

}  // namespace skiff::vmm
