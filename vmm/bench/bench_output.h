// SPDX-License-Identifier: GPL-2.0-or-later
// What `skiff bench guest` and `skiff bench queues` do with their results once they have them.
//
// Thread: one, that of the command. Functions give the command's exit status.
#pragma once

#include <cstdint>
#include <string>

#include "loop/result.h"

namespace skiff::vmm {

inline constexpr int kExitBenchFailed = 1;

// "skiff: message" on stderr; gives `status` back.
int fail_bench(const std::string& message, int status);
// Of one that could not begin, or that broke off: only what the disk did is no fault of the words.
int fail_bench(const loop::Error& error);
// Before minutes of measuring: can the picture be written? Nothing named is fine.
bool can_write_plot(const std::string& name);
void show_round(const std::string& name, uint32_t round, double iops);
// The text on stdout, and the picture, if one has a name, into its file.
int write_results(const std::string& text, const std::string& plot_name, const std::string& plot);

}  // namespace skiff::vmm
