// SPDX-License-Identifier: GPL-2.0-or-later
// ThreadPoolEngine: requests as blocking system calls on a worker pool, where there is no io_uring.
//
// Thread: the home loop's throughout; only the system calls run on workers. Ownership: borrows loop
// and pool.
#pragma once

#include "block/io_engine.h"
#include "loop/home.h"

namespace skiff::block {

class ThreadPoolEngine final : public IoEngine {
 public:
  ThreadPoolEngine(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool)
      : target_(target), home_(loop), pool_(pool) {}
  ~ThreadPoolEngine() override;
  ThreadPoolEngine(const ThreadPoolEngine&) = delete;
  ThreadPoolEngine& operator=(const ThreadPoolEngine&) = delete;

  std::string_view name() const override { return "threads"; }
  void submit(std::span<IoRequest* const> batch) override;
  uint32_t in_flight() const override { return in_flight_; }

 private:
  static void run_on_worker(loop::WorkItem& item);
  static void on_done(loop::WorkItem& item);

  const IoTarget target_;
  loop::Home home_;
  loop::WorkerPool& pool_;
  uint32_t in_flight_ = 0;
};

}  // namespace skiff::block
