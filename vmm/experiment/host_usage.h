// SPDX-License-Identifier: GPL-2.0-or-later
// What the host's CPUs did, and what groups of processes take, as /proc tells.
//
// Thread: any; the functions read files and do not block on anything else. Ownership: values.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>

namespace skiff::vmm {

// Of all CPUs since the host was started, in the kernel's ticks.
struct HostCpuTime {
  uint64_t all = 0;
  uint64_t steal = 0;  // Wanted, and given to another guest by the host's own host.

  static HostCpuTime now();
  double steal_percent_since(const HostCpuTime& begin) const;
};

struct GroupUsage {
  uint64_t threads = 0;
  uint64_t anonymous_bytes = 0;  // What is shared between processes counts for each its part.
};
// Of all processes of these groups now.
GroupUsage usage_of_groups(const std::set<pid_t>& groups);

}  // namespace skiff::vmm
