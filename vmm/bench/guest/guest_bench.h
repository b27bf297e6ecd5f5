// SPDX-License-Identifier: GPL-2.0-or-later
// GuestBench: measures a disk as a guest sees it, with one virtual machine monitor and arrangement
// after the other, in rounds; and the host's own way to the same disk in between.
//
// One short run more for each contestant counts exits, interrupts and system calls, which cannot be
// counted and timed at once. Thread: the main thread; blocks. Ownership: owns everything of a run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/guest/bench_payload.h"
#include "vmm/bench/guest/guest_command.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_process.h"
#include "vmm/bench/guest/guest_result.h"

namespace skiff::vmm {

struct GuestBenchResults {
  std::optional<EngineResult> floor;
  std::vector<GuestResult> guests;  // In the order of the options' contestants.
};

class GuestBench {
 public:
  // Said after each run.
  using OnRun = std::function<void(const std::string& name, uint32_t round, double iops)>;

  static loop::Result<std::unique_ptr<GuestBench>> create(GuestBenchOptions options, OnRun on_run);

  // kInvalidArgument before anything is written that must not be. A contestant that fails has the
  // error in its result and takes part in no further round; when all do, the first one's is ours.
  loop::Result<GuestBenchResults> run();

 private:
  GuestBench(GuestBenchOptions options, OnRun on_run, std::unique_ptr<loop::EventLoop> loop,
             PayloadFile payload);
  loop::Result<void> guard_data() const;
  loop::Result<void> measure_floor(EngineResult& result, uint32_t round);
  void measure(size_t index, uint32_t round, GuestResult& result);
  void count(size_t index, GuestResult& result);
  loop::Result<GuestSample> run_once(size_t index, int64_t duration_ns, const GuestHooks& hooks);

  const GuestBenchOptions options_;
  const OnRun on_run_;
  const std::unique_ptr<loop::EventLoop> loop_;
  const PayloadFile payload_;
  GuestRunPlan plan_;
};

}  // namespace skiff::vmm
