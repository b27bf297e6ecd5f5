// SPDX-License-Identifier: GPL-2.0-or-later
// QueuesDriver: the threads that drive the queues of `skiff bench queues`, as a guest's vCPUs
// would.
//
// Each has an eventfd that takes its queues' interrupts and, when the device is to live on it, an
// event loop that it turns. Thread: the main thread, but for what its threads do. Ownership: owns
// threads, loops and jobs; borrows the target from start() to finish().
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/bench/driver/blk_job.h"
#include "vmm/bench/driver/driver_memory.h"
#include "vmm/bench/queues_target.h"

namespace skiff::vmm {

class QueuesDriver {
 public:
  struct Options {
    uint32_t threads = 1;
    uint32_t queues = 1;
    bool irq = false;         // Threads sleep until an interrupt comes.
    bool with_loops = false;  // The device lives on them.
    uint64_t tsc_khz = 0;
    int64_t warm_up_ns = 0;
    int64_t duration_ns = 0;
  };
  // Of all threads.
  struct Counts {
    uint64_t interrupts = 0;
    uint64_t sleeps = 0;
    uint64_t spins = 0;  // Turns that found nothing to do.
  };

  static loop::Result<std::unique_ptr<QueuesDriver>> create(const Options& options);
  ~QueuesDriver();
  QueuesDriver(const QueuesDriver&) = delete;
  QueuesDriver& operator=(const QueuesDriver&) = delete;

  // Empty without loops. They turn from now on.
  std::vector<loop::EventLoop*> loops() const;
  // A job for each queue, placed in `memory`. False when that is not enough.
  bool place(DriverMemory& memory, const std::function<BlkJob::Options(uint32_t queue)>& options);
  std::vector<TargetQueue> queues() const;
  // Runs all jobs to their end on `target`, which is started; `on_begin` is called when the threads
  // are about to begin, and `on_end` when they have ended but are still there.
  void run(QueueTarget& target, const std::function<void()>& on_begin,
           const std::function<void()>& on_end);
  // The threads go. After the target has stopped, when it lives on their loops.
  void finish();

  const std::vector<std::unique_ptr<BlkJob>>& jobs() const { return jobs_; }
  Counts counts() const;

 private:
  enum class Phase : uint8_t { kPrepare, kRun, kLeave };
  struct Driver {
    uint32_t index = 0;
    std::unique_ptr<loop::EventNotifier> call;
    std::unique_ptr<loop::EventLoop> loop;
    loop::Thread thread;
    Counts counts;
  };

  explicit QueuesDriver(const Options& options) : options_(options) {}
  loop::Result<void> start_threads();
  void serve(Driver& driver);
  void run_jobs(Driver& driver);
  bool turn_jobs(Driver& driver, bool& idle);
  void sleep(Driver& driver);
  // Waits for the phase, turning the loop if there is one.
  void wait_for(Driver& driver, Phase phase);
  void enter(Phase phase);

  const Options options_;
  std::vector<std::unique_ptr<Driver>> drivers_;
  std::vector<std::unique_ptr<BlkJob>> jobs_;
  QueueTarget* target_ = nullptr;
  std::atomic<Phase> phase_{Phase::kPrepare};
  std::atomic<uint32_t> ready_{0};
  std::atomic<uint32_t> done_{0};
};

}  // namespace skiff::vmm
