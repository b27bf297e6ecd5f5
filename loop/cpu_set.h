// SPDX-License-Identifier: GPL-2.0-or-later
// CpuSet: which of the host's CPUs a thread may use.
//
// Thread: any; a value type.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "loop/result.h"

namespace skiff::loop {

class CpuSet {
 public:
  static constexpr uint32_t kMaxCpus = 8192;  // As the kernel's own largest build.

  CpuSet() = default;  // Empty: "wherever the creator may run".

  // "0-3,8". Fails on anything else, and on CPU numbers of kMaxCpus or more; does not ask whether
  // the host has them.
  static Result<CpuSet> parse(std::string_view text);
  // Where the process was allowed to run, by its main thread: whatever pinned thread asks.
  static Result<CpuSet> of_process();
  static Result<CpuSet> of_current_thread();

  void add(uint32_t cpu);
  bool contains(uint32_t cpu) const;
  bool empty() const { return count() == 0; }
  uint32_t count() const;
  std::string to_string() const;  // The form that parse() takes.

  // Fails when the host has none of these CPUs for this process.
  Result<void> apply_to_current_thread() const;

  friend bool operator==(const CpuSet& a, const CpuSet& b) { return a.words_ == b.words_; }

 private:
  static Result<CpuSet> of_thread(int thread_id);

  std::vector<uint64_t> words_;  // No trailing zero words, so that equal sets compare equal.
};

}  // namespace skiff::loop
