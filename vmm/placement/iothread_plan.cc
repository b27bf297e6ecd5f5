// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/iothread_plan.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loop/cpu_set.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/field_values.h"
#include "vmm/placement/host_topology.h"

namespace skiff::vmm {
namespace {

constexpr uint16_t kMmioQueuesDefault = 1;

size_t wanted_count(std::span<const DiskConfig> disks, const PlacementFacts& facts) {
  const auto needs_thread = [](const DiskConfig& disk) { return disk.submit != DiskSubmit::kVcpu; };
  const auto disks_served = static_cast<size_t>(std::ranges::count_if(disks, needs_thread));
  if (facts.vcpus == 1) return std::min<size_t>(disks_served, 1);
  return std::min<size_t>(disks_served, facts.usable.cores(facts.topology));
}

std::string_view distance_words(CpuDistance distance) {
  switch (distance) {
    case CpuDistance::kSameCpu:
      return "on the CPUs of the vCPUs: there are no others";
    case CpuDistance::kSibling:
      return "on hardware threads beside pinned vCPUs";
    case CpuDistance::kSameCache:
      return "on CPUs that share a cache with pinned vCPUs";
    case CpuDistance::kSameNode:
      return "on the memory node of pinned vCPUs";
    case CpuDistance::kFar:
      break;
  }
  return "away from pinned vCPUs, where there is room";
}

struct Nearest {
  loop::CpuSet cpus;
  CpuDistance distance = CpuDistance::kFar;
};

Nearest find_nearest(const HostTopology& topology, const loop::CpuSet& usable,
                     const loop::CpuSet& vcpu_cpus, const loop::CpuSet& taken) {
  for (const CpuDistance pass : {CpuDistance::kSibling, CpuDistance::kSameCache,
                                 CpuDistance::kSameNode, CpuDistance::kFar}) {
    Nearest nearest{.distance = pass};
    for (const HostCpu& cpu : topology.cpus()) {
      if (!usable.contains(cpu.cpu) || taken.contains(cpu.cpu)) continue;
      const bool is_near = std::ranges::any_of(topology.cpus(), [&](const HostCpu& other) {
        return vcpu_cpus.contains(other.cpu) && topology.distance(cpu.cpu, other.cpu) == pass;
      });
      if (is_near) nearest.cpus.add(cpu.cpu);
    }
    if (!nearest.cpus.empty()) return nearest;
  }
  return {.cpus = {}, .distance = CpuDistance::kSameCpu};
}

// Only where vCPUs have places of their own is another place known to be better than the
// scheduler's choice.
void place_near_vcpus(PlannedIothread& thread, size_t index, size_t count,
                      const PlacementFacts& facts) {
  loop::CpuSet all;
  loop::CpuSet served;
  for (uint32_t vcpu = 0; vcpu < facts.vcpus; ++vcpu) {
    const uint32_t cpu = facts.vcpu_pins[vcpu % facts.vcpu_pins.size()];
    all.add(cpu);
    if (vcpu % count == index % count) served.add(cpu);
  }
  const Nearest nearest =
      find_nearest(facts.topology, facts.usable.cpus, served.empty() ? all : served, all);
  thread.cpus = nearest.cpus;
  thread.why += fmt::format(", {}", distance_words(nearest.distance));
}

}  // namespace

loop::CpuSet nearest_cpus(const HostTopology& topology, const loop::CpuSet& usable,
                          const loop::CpuSet& vcpu_cpus, const loop::CpuSet& taken) {
  return find_nearest(topology, usable, vcpu_cpus, taken).cpus;
}

std::vector<PlannedIothread> plan_iothreads(std::span<const DiskConfig> disks,
                                            std::span<const IothreadConfig> configured,
                                            const PlacementFacts& facts) {
  std::vector<PlannedIothread> threads;
  for (const IothreadConfig& thread : configured)
    threads.push_back({.name = thread.id,
                       .cpus = thread.cpus,
                       .sched = thread.sched,
                       .poll_max_us = thread.poll_max_us.value_or(kPollMaxUsDefault),
                       .polls_always = thread.poll_max_us.value_or(0) > 0,
                       .why = thread.cpus.empty()
                                  ? "asked for"
                                  : fmt::format("asked for, on CPUs {}", thread.cpus.to_string())});
  if (!threads.empty()) return threads;
  const size_t count = wanted_count(disks, facts);
  for (size_t i = 0; i < count; ++i) {
    PlannedIothread thread{.name = fmt::format("io{}", i), .poll_max_us = kPollMaxUsDefault};
    thread.why = fmt::format("{} of {} for {} disks, {} vCPUs and {} usable cores", i + 1, count,
                             disks.size(), facts.vcpus, facts.usable.cores(facts.topology));
    if (!facts.vcpu_pins.empty()) place_near_vcpus(thread, i, count, facts);
    threads.push_back(std::move(thread));
  }
  return threads;
}

uint16_t plan_queue_count(const DiskConfig& disk, uint32_t vcpus) {
  if (disk.queues != 0) return static_cast<uint16_t>(disk.queues);
  if (disk.bus == DeviceBus::kMmio) return kMmioQueuesDefault;
  return static_cast<uint16_t>(std::clamp(vcpus, 1u, kDiskQueuesMax));
}

std::vector<size_t> plan_allowed_threads(const DiskConfig& disk,
                                         std::span<const PlannedIothread> threads) {
  std::vector<size_t> allowed;
  for (size_t i = 0; i < threads.size(); ++i)
    if (disk.iothreads.empty() ||
        std::ranges::find(disk.iothreads, threads[i].name) != disk.iothreads.end())
      allowed.push_back(i);
  return allowed;
}

std::vector<size_t> plan_queue_map(const DiskConfig& disk, size_t disk_index, uint16_t queues,
                                   std::span<const PlannedIothread> threads) {
  std::vector<size_t> choice = plan_allowed_threads(disk, threads);  // Taken in turns.
  const bool is_list = disk.map.kind == QueueMap::Kind::kList;
  // In the order in which they were named.
  const std::vector<std::string>& names = is_list ? disk.map.iothreads : disk.iothreads;
  if (!names.empty()) choice.clear();
  for (const std::string& name : names) {
    const auto found = std::ranges::find(threads, name, &PlannedIothread::name);
    if (found != threads.end()) choice.push_back(static_cast<size_t>(found - threads.begin()));
  }
  std::vector<size_t> map;
  if (choice.empty()) return map;
  // A list says exactly where to begin; otherwise disks begin on different threads.
  const size_t first = is_list ? 0 : disk_index;
  for (uint16_t queue = 0; queue < queues; ++queue)
    map.push_back(choice[(first + queue) % choice.size()]);
  return map;
}

}  // namespace skiff::vmm
