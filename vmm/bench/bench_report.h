// SPDX-License-Identifier: GPL-2.0-or-later
// What `skiff bench disk` prints: a table for people, JSON for programs.
//
// Thread: any; pure functions.
#pragma once

#include <span>
#include <string>

#include "vmm/bench/bench_result.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

// Times in microseconds, like the CPU time of one I/O. Ends with what needs explaining.
std::string bench_table(const DiskBenchOptions& options, std::span<const EngineResult> results);
// An array with an object for each engine. Numbers of nanoseconds are named *_ns.
std::string bench_json(const DiskBenchOptions& options, std::span<const EngineResult> results);

}  // namespace skiff::vmm
