// SPDX-License-Identifier: GPL-2.0-or-later
// SKIFF_CHECK: an assertion that is always on, for our own invariants.
//
// Never for anything that a guest, an image, a peer or a user supplied: those get an Error.
// Thread: any.
#pragma once

namespace skiff::loop {

// Prints the failed condition and its place, then aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace skiff::loop

#define SKIFF_CHECK(condition)                         \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::skiff::loop::check_failed(#condition, __FILE__, __LINE__))
