// SPDX-License-Identifier: GPL-2.0-or-later
// Where the completions of a queue should happen: choose_vcpu() for queues that vCPUs serve,
// Balancer for queues that IOThreads serve.
//
// Thread: any, one at a time; time is the caller's. Ownership: values; Balancer borrows the
// topology.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/placement/host_topology.h"
#include "vmm/placement/msi_target.h"

namespace skiff::vmm {

struct SteeringFacts {
  bool steer = true;
  uint16_t queue = 0;
  uint32_t vcpus = 1;
  std::optional<MsiTarget> target;    // Of the queue's interrupt; none yet, or masked: nothing.
  std::optional<uint32_t> submitter;  // Who rang last.
};

struct VcpuChoice {
  uint32_t vcpu = 0;
  std::string_view why;
};
// The one vCPU that the interrupt goes to; where there is not exactly one, who rang last; failing
// that, and with steer off, the queue's number.
VcpuChoice choose_vcpu(const SteeringFacts& facts);

// What the balancer is told of each IOThread and of each queue that one of them serves.
struct BalancedThread {
  std::optional<uint32_t> cpu;  // Where it last ran.
  double load = 0;              // 0 to 1.
};
struct BalancedQueue {
  size_t thread = 0;
  std::vector<size_t> allowed;         // The threads that it may move to.
  std::optional<uint32_t> target_cpu;  // Where the vCPU that its interrupts go to last ran.
  double requests_per_s = 0;
};
struct BalancerMove {
  size_t queue = 0;
  size_t thread = 0;
  std::string why;
};

// Moves at most one queue a period, and only when the gain is clear for three periods in a row.
class Balancer {
 public:
  static constexpr int64_t kPeriodNs = 100'000'000;

  explicit Balancer(const HostTopology& topology) : topology_(topology) {}
  // Both spans keep their order between calls. Calls that come before a period is over do nothing.
  std::optional<BalancerMove> step(int64_t now_ns, std::span<const BalancedThread> threads,
                                   std::span<const BalancedQueue> queues);
  // What a request of the queue costs on this thread because of where and how busy it is.
  double cost_ns(const BalancedQueue& queue, size_t thread,
                 std::span<const BalancedThread> threads) const;

 private:
  struct Wish {
    size_t thread = 0;
    int periods = 0;
  };
  const HostTopology& topology_;
  std::optional<int64_t> last_ns_;
  std::vector<Wish> wishes_;
};

}  // namespace skiff::vmm
