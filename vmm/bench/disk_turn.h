// SPDX-License-Identifier: GPL-2.0-or-later
// DiskTurn: one engine's turn of a disk benchmark: image, pool, threads and jobs from open to end.
//
// Thread: the main thread, which turns its loop while it waits for the jobs' threads.
// Ownership: owns all of them; borrows the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "block/block_channel.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/disk_job.h"
#include "vmm/bench/overwrite_guard.h"

namespace skiff::vmm {

class DiskTurn {
 public:
  struct Outcome {
    RoundSample sample;
    uint64_t loop_syscalls = 0;  // That the jobs' event loops made, the warm-up included.
  };
  // Called on the main loop: when the measuring begins, when all jobs have ended, and every 100 ms.
  struct Hooks {
    std::function<void()> on_begin;
    std::function<void()> on_end;
    std::function<void(double seconds, uint64_t completed)> on_tick;
  };

  // Opens the disk with this engine, with a channel for each job.
  static loop::Result<std::unique_ptr<DiskTurn>> open(loop::EventLoop& loop,
                                                      const DiskBenchOptions& options,
                                                      block::IoEngineKind kind);
  ~DiskTurn();
  DiskTurn(const DiskTurn&) = delete;
  DiskTurn& operator=(const DiskTurn&) = delete;

  StatusWalk::Finding look_for_data();
  // At most once. Fails with kIo when a request failed.
  loop::Result<Outcome> run(int64_t duration_ns, const Hooks& hooks);
  // In a callback of the loop.
  void stop();

 private:
  // A job's thread, and what lives on it.
  struct Host {
    std::unique_ptr<loop::IoThread> thread;
    std::unique_ptr<DiskJob> job;
    std::unique_ptr<DiskJob> share;
    std::optional<loop::Error> error;
  };

  DiskTurn(loop::EventLoop& loop, const DiskBenchOptions& options);
  loop::Result<void> open_images(block::IoEngineKind kind);
  loop::Result<void> start_threads();
  void make_jobs(Host& host, uint32_t index);
  uint64_t span_bytes() const;
  // Runs `work` on each job's thread and waits until all have answered.
  void on_all(const std::function<void(Host&)>& work);
  void answer();
  void wait_for(uint32_t answers);
  uint64_t completed() const;
  uint64_t loop_syscalls() const;
  loop::Result<void> first_failure() const;

  loop::EventLoop& loop_;
  const DiskBenchOptions& options_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<block::BlockBackend> image_;
  std::unique_ptr<block::BlockBackend> share_image_;
  std::vector<std::unique_ptr<Host>> hosts_;
  uint32_t answers_due_ = 0;
};

}  // namespace skiff::vmm
