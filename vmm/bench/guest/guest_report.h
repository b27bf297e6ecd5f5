// SPDX-License-Identifier: GPL-2.0-or-later
// What `skiff bench guest` prints: a table for people, JSON for programs, a picture.
//
// Thread: any; pure functions.
#pragma once

#include <string>

#include "vmm/bench/guest/guest_bench.h"
#include "vmm/bench/guest/guest_options.h"

namespace skiff::vmm {

// Times in microseconds. Overhead is the latency beyond the floor's, of means.
std::string guest_table(const GuestBenchOptions& options, const GuestBenchResults& results);
std::string guest_json(const GuestBenchOptions& options, const GuestBenchResults& results);
std::string guest_plot(const GuestBenchOptions& options, const GuestBenchResults& results);

}  // namespace skiff::vmm
