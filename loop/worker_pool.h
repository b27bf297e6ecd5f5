// SPDX-License-Identifier: GPL-2.0-or-later
// WorkerPool: threads for calls that block, so that no loop does.
//
// Workers are started by a spawner thread of the pool's own, never by the thread that submits:
// creating a thread costs 24 us, and a worker must not inherit the CPUs or the real-time policy
// that its submitter was pinned to. Some are there from the start; more come one after the other
// while there is a backlog, a starting worker asking for the next. The one that went idle last is
// woken first: its caches are warm, and the others can retire.
//
// Thread: submit() and cancel() on the item's home loop, set_limits() and counters() on any;
//         created and destroyed on any, but never on a worker.
// Ownership: owns its threads. Items are borrowed from submit() until `done`, and all of them must
// be done before the pool goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/thread.h"

namespace skiff::loop {

// One piece of blocking work. Kept in place by its owner until `done`.
struct WorkItem {
  // Long work (fsync, fallocate, compression) gets a share of the workers only, so that it cannot
  // take all of them.
  enum class Lane : uint8_t { kShort, kLong };

  void (*run)(WorkItem&) = nullptr;   // On a worker, with all signals blocked.
  void (*done)(WorkItem&) = nullptr;  // On the home loop, in class kCompletion.
  Lane lane = Lane::kShort;

  // The pool's.
  struct Link : Message {
    WorkItem* item = nullptr;
  };
  Link link;
  EventLoop* home = nullptr;
  uint64_t sequence = 0;
  bool queued = false;
};

class WorkerPool {
 public:
  struct Options {
    std::string name = "worker";
    uint32_t min_workers = 2;  // Started at once, and kept.
    uint32_t max_workers = 32;
    uint32_t max_long_percent = 50;  // Of max_workers, at least one: what long work may use.
    int64_t idle_retire_ns = 10'000'000'000;
    CpuSet cpus;        // Empty: all that the process may use, whatever the creator is pinned to.
    SchedPolicy sched;  // kOther, unless the user wants otherwise; never inherited.
  };
  struct Counters {
    uint32_t workers = 0;
    uint32_t idle = 0;
    uint32_t queued = 0;
    uint32_t running_long = 0;
    uint64_t started = 0;  // Workers, since the pool was made.
    uint64_t retired = 0;
    uint64_t wakes = 0;  // Of idle workers.
    uint64_t completed = 0;
  };

  // Returns once min_workers are there.
  static Result<std::unique_ptr<WorkerPool>> create(Options options);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // `item.run` on a worker, then `item.done` on `home`, in a later turn. Never blocks on a worker
  // and never creates a thread.
  void submit(EventLoop& home, WorkItem& item);
  // True if it was still queued: then neither `run` nor `done` will be called.
  bool cancel(WorkItem& item);

  // 1 <= min_workers <= max_workers. Surplus workers retire when they have been idle.
  void set_limits(uint32_t min_workers, uint32_t max_workers);
  Counters counters() const;

 private:
  struct State;
  explicit WorkerPool(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace skiff::loop
