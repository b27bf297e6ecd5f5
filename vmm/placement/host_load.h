// SPDX-License-Identifier: GPL-2.0-or-later
// HostLoad: how many of the host's CPUs have nothing to do.
//
// Thread: one at a time. Ownership: a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "loop/cpu_set.h"

namespace skiff::vmm {

class HostLoad {
 public:
  // Of these CPUs; empty: of all. `stat_path`: another file in tests.
  explicit HostLoad(loop::CpuSet cpus, std::string stat_path = "/proc/stat");
  // Idle CPUs on average since the last call; nothing the first time, where too little time has
  // passed to tell, and where the file says nothing.
  std::optional<double> idle_cpus();

 private:
  struct Times {
    uint64_t idle = 0;  // Ticks, of all CPUs together.
    uint64_t all = 0;
    uint32_t cpus = 0;
  };
  std::optional<Times> read() const;

  const loop::CpuSet cpus_;
  const std::string stat_path_;
  std::optional<Times> last_;
};

}  // namespace skiff::vmm
