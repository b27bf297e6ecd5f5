// SPDX-License-Identifier: GPL-2.0-or-later
// Commands under measurement.
//
// Thread: the benchmark's only one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace skiff::perf {

struct Sample {
  int status = -1;  // Exit status, or 128 + signal.
  int64_t wall_ns = 0;
  int64_t cpu_ns = 0;
};

// Runs to the end with stdin from, and stdout and stderr to, nowhere.
Sample run_to_end(const std::vector<std::string>& command);

// The same, but for what it wrote to stdout.
struct Output {
  Sample sample;
  std::string text;
};
Output run_and_read(const std::vector<std::string>& command);

// Runs until it has written a byte to stdout, and returns how much anonymous memory it has then, in
// bytes, without the mapping of `guest_bytes` that is the guest's RAM. -1 when it ended before.
// Kills it.
int64_t anonymous_bytes_when_up(const std::vector<std::string>& command, uint64_t guest_bytes);

}  // namespace skiff::perf
