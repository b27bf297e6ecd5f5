// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/steering.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vmm/placement/host_topology.h"
#include "vmm/placement/msi_target.h"

namespace skiff::vmm {
namespace {

constexpr double kGainNeeded = 0.9;  // Of the cost: 10 % less.
constexpr int kPeriodsNeeded = 3;
constexpr double kRequestsPerSecondMin = 100;
constexpr double kServiceNs = 2000;  // Of an IOThread, for a request.
constexpr double kLoadMax = 0.98;    // Keeps the waiting time finite.

// To move a completion's lines between two CPUs, and what the two do to each other.
constexpr double distance_cost_ns(CpuDistance distance) {
  switch (distance) {
    case CpuDistance::kSameCpu:
      return 2000;  // Thread and vCPU take turns on it.
    case CpuDistance::kSibling:
      return 100;
    case CpuDistance::kSameCache:
      return 200;
    case CpuDistance::kSameNode:
      return 500;
    case CpuDistance::kFar:
      break;
  }
  return 1500;
}

}  // namespace

VcpuChoice choose_vcpu(const SteeringFacts& facts) {
  const uint32_t by_number = facts.queue % std::max(facts.vcpus, 1u);
  if (!facts.steer) return {by_number, "steer=off: by its number"};
  const bool has_set = facts.target && facts.target->kind == MsiTarget::Kind::kVcpus;
  if (has_set && facts.target->vcpus.size() == 1)
    return {facts.target->vcpus.front(), "its interrupts go there"};
  if (facts.submitter && *facts.submitter < facts.vcpus) {
    const bool is_member = !has_set || std::ranges::find(facts.target->vcpus, *facts.submitter) !=
                                           facts.target->vcpus.end();
    if (is_member) return {*facts.submitter, "it rang last"};
  }
  if (has_set) return {facts.target->vcpus.front(), "the first of those its interrupts go to"};
  return {by_number, "by its number, until the guest says where interrupts go"};
}

double Balancer::cost_ns(const BalancedQueue& queue, size_t thread,
                         std::span<const BalancedThread> threads) const {
  const BalancedThread& candidate = threads[thread];
  const bool is_placed = queue.target_cpu && candidate.cpu;
  const double distance =
      is_placed ? distance_cost_ns(topology_.distance(*queue.target_cpu, *candidate.cpu))
                : distance_cost_ns(CpuDistance::kSameCache);
  // What the others on that thread make it wait; its own load goes with it.
  const double own = queue.requests_per_s * kServiceNs / 1e9;
  const double others = thread == queue.thread ? candidate.load - own : candidate.load;
  const double rho = std::clamp(others, 0.0, kLoadMax);
  return distance + kServiceNs * (1 + rho / (1 - rho));
}

std::optional<BalancerMove> Balancer::step(int64_t now_ns, std::span<const BalancedThread> threads,
                                           std::span<const BalancedQueue> queues) {
  if (last_ns_ && now_ns - *last_ns_ < kPeriodNs) return std::nullopt;
  last_ns_ = now_ns;
  if (wishes_.size() != queues.size()) wishes_.assign(queues.size(), {});
  std::optional<BalancerMove> move;
  double best_gain = 0;
  for (size_t i = 0; i < queues.size(); ++i) {
    const BalancedQueue& queue = queues[i];
    Wish& wish = wishes_[i];
    const double here = cost_ns(queue, queue.thread, threads);
    size_t best = queue.thread;
    double least = here * kGainNeeded;
    for (const size_t thread : queue.allowed) {
      const double there = cost_ns(queue, thread, threads);
      if (thread == queue.thread || there >= least) continue;
      best = thread;
      least = there;
    }
    const bool is_idle = queue.requests_per_s < kRequestsPerSecondMin;
    if (best == queue.thread || is_idle) {
      wish = {};
      continue;
    }
    wish.periods = wish.thread == best ? wish.periods + 1 : 1;
    wish.thread = best;
    const double gain = (here - least) * queue.requests_per_s;
    if (wish.periods < kPeriodsNeeded || gain <= best_gain) continue;
    best_gain = gain;
    move = {i, best,
            fmt::format("a request costs {:.1f} us there, {:.1f} us before", least / 1000,
                        here / 1000)};
  }
  // The others' wishes were made with this queue where it was.
  if (move) wishes_.assign(queues.size(), {});
  return move;
}

}  // namespace skiff::vmm
