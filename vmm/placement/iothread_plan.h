// SPDX-License-Identifier: GPL-2.0-or-later
// The plan of a machine's IOThreads: how many, where they may run, and which queue begins on which.
//
// Thread: any; pure functions over values. Ownership: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "loop/cpu_set.h"
#include "loop/thread.h"
#include "vmm/config/disk_config.h"
#include "vmm/placement/host_topology.h"

namespace skiff::vmm {

struct PlannedIothread {
  std::string name;
  loop::CpuSet cpus;  // Empty: wherever the process may run.
  loop::SchedPolicy sched;
  uint32_t poll_max_us = 0;
  bool polls_always = false;  // Also when no queue in poll mode lives there: the user said so.
  std::string why;            // For people: why it is there and runs where it does.
};

struct PlacementFacts {
  const HostTopology& topology;
  UsableCpus usable;
  uint32_t vcpus = 1;
  std::vector<uint32_t> vcpu_pins;  // vCPU i on pin[i % size]; empty: anywhere.
};

// How long an IOThread may look out for work of queues in poll mode, unless the user says.
inline constexpr uint32_t kPollMaxUsDefault = 50;

// The configured ones, or without any as many as suit the host: none when every disk's vCPUs
// submit; one for a machine of one vCPU; else one for each disk, never more than usable cores.
// They are pinned where the user said so, and near the vCPUs where those are pinned.
std::vector<PlannedIothread> plan_iothreads(std::span<const DiskConfig> disks,
                                            std::span<const IothreadConfig> configured,
                                            const PlacementFacts& facts);

// How many queues the disk gets: as it says, else one for each vCPU over PCI, where each has an
// interrupt of its own, and one over MMIO, where all share one.
uint16_t plan_queue_count(const DiskConfig& disk, uint32_t vcpus);

// The IOThread, as an index into `threads`, of each queue of a disk; `disk_index` spreads disks
// with one queue. Empty when there are no threads.
std::vector<size_t> plan_queue_map(const DiskConfig& disk, size_t disk_index, uint16_t queues,
                                   std::span<const PlannedIothread> threads);

// The threads that the disk's queues may move to: those of iothreads=, else all.
std::vector<size_t> plan_allowed_threads(const DiskConfig& disk,
                                         std::span<const PlannedIothread> threads);

// The CPUs to choose from for a thread that works for vCPUs on `vcpu_cpus`, best first: the other
// hardware threads of their cores, then those that share their cache, then their node, then the
// rest; without those that vCPUs sit on. The first group that is not empty.
loop::CpuSet nearest_cpus(const HostTopology& topology, const loop::CpuSet& usable,
                          const loop::CpuSet& vcpu_cpus, const loop::CpuSet& taken);

}  // namespace skiff::vmm
