// SPDX-License-Identifier: GPL-2.0-or-later
// What `skiff bench queues` prints: a table for people, JSON for programs, a picture.
//
// Thread: any; pure functions.
#pragma once

#include <span>
#include <string>

#include "vmm/bench/queues_bench.h"
#include "vmm/bench/queues_options.h"

namespace skiff::vmm {

// Times in microseconds. "serve us" is CPU time for each request of the threads that serve.
std::string queues_table(const QueuesBenchOptions& options, std::span<const QueuesResult> results);
std::string queues_json(const QueuesBenchOptions& options, std::span<const QueuesResult> results);
std::string queues_plot(const QueuesBenchOptions& options, std::span<const QueuesResult> results);

}  // namespace skiff::vmm
