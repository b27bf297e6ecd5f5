// SPDX-License-Identifier: GPL-2.0-or-later
// FaultPlan: the fault rules that hold now, for all channels of an image; FaultDice: one channel's
// decisions.
//
// Rules are replaced while channels run: each sees the new ones from its next request on, at the
// price of one relaxed load a request. Counts (nth, times) are the image's; what is random is the
// channel's own, from the seed and the number of the channel, so one loop sees the same every time.
// Thread: FaultPlan any; FaultDice its channel's loop. Ownership: the plan outlives its dice.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "block/block_channel.h"
#include "block/filters/fault_rules.h"
#include "loop/mutex.h"

namespace skiff::block {

// What happens to one request.
struct Fault {
  int64_t delay_ns = 0;
  int32_t result = 0;         // -errno; 0: it goes on as it is.
  uint64_t prefix_bytes = 0;  // Of a torn one: done before it fails.
};

class FaultPlan {
 public:
  explicit FaultPlan(FaultRules rules = {});
  FaultPlan(const FaultPlan&) = delete;
  FaultPlan& operator=(const FaultPlan&) = delete;

  void set(FaultRules rules);
  // Faults so far, of all rules that there were.
  uint64_t faults() const { return faults_.load(std::memory_order_relaxed); }

 private:
  friend class FaultDice;
  struct Counts {
    std::atomic<uint64_t> matched{0};
    std::atomic<uint64_t> fired{0};
  };
  struct Live {
    explicit Live(FaultRules its_rules) : rules(std::move(its_rules)), counts(rules.rules.size()) {}
    const FaultRules rules;
    std::vector<Counts> counts;
  };

  std::atomic<uint64_t> version_{1};
  std::atomic<uint64_t> faults_{0};
  std::atomic<uint32_t> dice_{0};
  loop::Mutex mutex_;
  // Shared: channels go on with the old rules until they look again, and nobody waits for them.
  std::shared_ptr<Live> live_ SKIFF_GUARDED_BY(mutex_);
};

class FaultDice {
 public:
  explicit FaultDice(FaultPlan& plan);

  // No rule at all: requests need not be looked at.
  bool is_idle();
  Fault next(const BlockRequest& request);
  // For one system call of `op` on this range.
  FaultRule::Io next_io(BlockOp op, uint64_t offset_bytes, uint64_t length_bytes);
  // Uniform in [low, high].
  uint64_t pick(uint64_t low, uint64_t high);

 private:
  void refresh();
  bool fires(size_t index, BlockOp op, uint64_t offset_bytes, uint64_t length_bytes);

  FaultPlan& plan_;
  const uint32_t number_;
  uint64_t version_ = 0;
  std::shared_ptr<FaultPlan::Live> live_;
  std::mt19937_64 random_;
};

}  // namespace skiff::block
