// SPDX-License-Identifier: GPL-2.0-or-later
// DiskBench: measures a disk with one engine after the other, in turns.
//
// Each turn opens the disk anew, gives every job a thread with a loop and a channel of its own,
// lets them warm up, and measures. One short turn more for each engine counts system calls, which
// cannot be counted and timed at once.
//
// Thread: the main thread, which turns `loop` while it waits; the loop is not turned by others.
// Ownership: borrows the loop; owns everything of a turn until its end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

class DiskTurn;

// Where a benchmark is, ten times a second and once more at the end of each turn.
struct BenchProgress {
  std::string engine;
  uint32_t round = 0;  // From 1.
  uint32_t rounds = 0;
  double seconds = 0;  // Of this turn.
  double iops = 0;     // Since the last report, or of the whole turn at its end.
  bool turn_ended = false;
};

class DiskBench {
 public:
  DiskBench(loop::EventLoop& loop, DiskBenchOptions options,
            std::function<void(const BenchProgress&)> on_progress);

  // All turns; blocks, turning the loop. kInvalidArgument before anything is written that must not
  // be; kIo when a request failed. After interrupt() what was measured until then.
  loop::Result<std::vector<EngineResult>> run();
  // In a callback of the loop: ends the present turn and starts no other.
  void interrupt();
  bool was_interrupted() const { return interrupted_; }

 private:
  loop::Result<void> guard_data();
  loop::Result<void> measure(EngineResult& result, block::IoEngineKind kind, uint32_t round);
  loop::Result<void> count_syscalls(EngineResult& result, block::IoEngineKind kind);

  loop::EventLoop& loop_;
  const DiskBenchOptions options_;
  const std::function<void(const BenchProgress&)> on_progress_;
  DiskTurn* turn_ = nullptr;
  bool interrupted_ = false;
};

}  // namespace skiff::vmm
