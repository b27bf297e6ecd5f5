// SPDX-License-Identifier: GPL-2.0-or-later
// Every allocation and every lock of the process, counted: for programs of their own that link
// path_counters.cc, whose hooks replace those of the libraries.
//
// Thread: any.
#pragma once

#include <atomic>
#include <cstdint>

namespace skiff {

extern std::atomic<uint64_t> counted_allocations;
extern std::atomic<uint64_t> counted_locks;

}  // namespace skiff
