// SPDX-License-Identifier: GPL-2.0-or-later
// The options of `skiff bench guest` and `skiff bench queues`, for the command line's library.
//
// Thread: the main thread, before any other exists. Ownership: the words outlive the parsing.
#pragma once

#include <CLI/CLI.hpp>

#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/queues_options.h"

namespace skiff::vmm {

void declare_bench_guest(CLI::App& guest, GuestBenchWords& words);
void declare_bench_queues(CLI::App& queues, QueuesBenchWords& words);

}  // namespace skiff::vmm
