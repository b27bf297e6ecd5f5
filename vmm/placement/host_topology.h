// SPDX-License-Identifier: GPL-2.0-or-later
// HostTopology: which of the host's CPUs share a core, a cache, a memory node; and how many of them
// this process may use.
//
// Thread: any; values. Ownership: none.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loop/cpu_set.h"

namespace skiff::vmm {

// How far two CPUs are from each other; each is farther than the one before.
enum class CpuDistance : uint8_t { kSameCpu, kSibling, kSameCache, kSameNode, kFar };

// One CPU. Cores and caches are named by the lowest CPU in them.
struct HostCpu {
  uint32_t cpu = 0;
  uint32_t package = 0;
  uint32_t core = 0;   // Hardware threads of one core have the same.
  uint32_t cache = 0;  // The last level that is shared: L3 on most hosts.
  uint32_t node = 0;   // NUMA.
  bool operator==(const HostCpu&) const = default;
};

class HostTopology {
 public:
  // From `sys_root`, /sys but in tests. What is missing or makes no sense there counts as a CPU
  // with a core and a cache of its own: there is always an answer.
  static HostTopology read(const std::string& sys_root = "/sys");
  explicit HostTopology(std::vector<HostCpu> cpus);

  std::span<const HostCpu> cpus() const { return cpus_; }  // Sorted; perhaps with gaps.
  const HostCpu* find(uint32_t cpu) const;                 // Null: not there.
  CpuDistance distance(uint32_t a, uint32_t b) const;      // kFar when one is not there.
  // The cores that have a CPU in `cpus`.
  uint32_t core_count(const loop::CpuSet& cpus) const;
  bool has_several_nodes() const;

 private:
  std::vector<HostCpu> cpus_;
};

// What the process may use of the host.
struct UsableCpus {
  loop::CpuSet cpus;            // Its affinity.
  std::optional<double> quota;  // CPU seconds a second that its cgroup allows.
  // How many threads of ours can really run at the same time: whole cores, at least 1.
  uint32_t cores(const HostTopology& topology) const;
};

// Where the kernel tells about cgroups; other directories in tests.
struct CgroupFiles {
  std::string membership = "/proc/self/cgroup";
  std::string root = "/sys/fs/cgroup";
};
// The least of the limits on the way to the root, of cgroup v2 (cpu.max) and v1 (cpu.cfs_*).
std::optional<double> read_cpu_quota(const CgroupFiles& files = {});
UsableCpus find_usable_cpus(const CgroupFiles& files = {});

}  // namespace skiff::vmm
