// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/worker_pool.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/cpu_set.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/message_list.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "loop/thread_annotations.h"

namespace skiff::loop {

struct WorkerPool::State {
  struct Worker {
    Thread thread;
    ConditionVariable wake;  // Its own: waking one does not stir the others.
    bool woken = false;
  };

  explicit State(Options wanted) : options(std::move(wanted)) {}

  // The spawner.
  void spawn_and_bury();
  Result<void> start_worker() SKIFF_EXCLUDES(mutex);
  Result<void> start_first_workers();
  void join_retired() SKIFF_REQUIRES(mutex);

  // A worker.
  void work(Worker& self);
  void run_item(WorkItem& item) SKIFF_REQUIRES(mutex);
  bool wait_for_work(Worker& self) SKIFF_REQUIRES(mutex);

  uint32_t long_limit() const SKIFF_REQUIRES(mutex);
  bool has_runnable() const SKIFF_REQUIRES(mutex);
  WorkItem* take() SKIFF_REQUIRES(mutex);
  void find_worker() SKIFF_REQUIRES(mutex);

  MessageList& lane(WorkItem::Lane which) SKIFF_REQUIRES(mutex) {
    return lanes[static_cast<size_t>(which)];
  }

  const Options options;
  Thread spawner;

  mutable Mutex mutex;
  ConditionVariable spawner_wake;
  ConditionVariable first_workers;  // Told the creator once.
  std::optional<Result<void>> start SKIFF_GUARDED_BY(mutex);
  bool stopping SKIFF_GUARDED_BY(mutex) = false;
  bool spawn_wanted SKIFF_GUARDED_BY(mutex) = false;
  uint32_t starting SKIFF_GUARDED_BY(mutex) = 0;  // Threads that have not come up yet.
  uint32_t min_workers SKIFF_GUARDED_BY(mutex) = 0;
  uint32_t max_workers SKIFF_GUARDED_BY(mutex) = 0;
  uint64_t next_sequence SKIFF_GUARDED_BY(mutex) = 0;
  std::array<MessageList, 2> lanes SKIFF_GUARDED_BY(mutex);
  std::vector<Worker*> idle SKIFF_GUARDED_BY(mutex);  // A stack: the last to go idle is at its end.
  std::vector<std::unique_ptr<Worker>> workers SKIFF_GUARDED_BY(mutex);
  std::vector<std::unique_ptr<Worker>> retired SKIFF_GUARDED_BY(mutex);
  Counters counters SKIFF_GUARDED_BY(mutex);
};

namespace {

WorkItem& item_of(Message& message) { return *static_cast<WorkItem::Link&>(message).item; }

}  // namespace

uint32_t WorkerPool::State::long_limit() const {
  return std::max<uint32_t>(1, max_workers * options.max_long_percent / 100);
}

bool WorkerPool::State::has_runnable() const {
  return !lanes[0].empty() || (!lanes[1].empty() && counters.running_long < long_limit());
}

WorkItem* WorkerPool::State::take() {
  MessageList& short_lane = lane(WorkItem::Lane::kShort);
  MessageList& long_lane = lane(WorkItem::Lane::kLong);
  const bool long_allowed = !long_lane.empty() && counters.running_long < long_limit();
  if (short_lane.empty() && !long_allowed) return nullptr;
  // In order of submission, but for long work that has had its share.
  const bool take_long =
      long_allowed && (short_lane.empty() ||
                       item_of(long_lane.front()).sequence < item_of(short_lane.front()).sequence);
  --counters.queued;
  if (take_long) ++counters.running_long;
  WorkItem& item = item_of(*(take_long ? long_lane : short_lane).pop_front());
  item.queued = false;
  return &item;
}

void WorkerPool::State::find_worker() {
  if (!has_runnable()) return;
  if (!idle.empty()) {
    Worker& worker = *idle.back();
    idle.pop_back();
    worker.woken = true;
    ++counters.wakes;
    worker.wake.notify_one();
    return;
  }
  // One at a time: the one that starts asks for the next if there is still a backlog then.
  if (spawn_wanted || starting > 0 || workers.size() >= max_workers) return;
  spawn_wanted = true;
  spawner_wake.notify_one();
}

void WorkerPool::State::work(Worker& self) {
  MutexLock lock(mutex);
  --starting;
  bool just_started = true;
  while (true) {
    if (WorkItem* item = take(); item != nullptr) {
      if (std::exchange(just_started, false)) find_worker();
      run_item(*item);
    } else if (stopping || !wait_for_work(self)) {
      return;
    }
  }
}

void WorkerPool::State::run_item(WorkItem& item) {
  mutex.unlock();
  item.run(item);
  mutex.lock();
  if (item.lane == WorkItem::Lane::kLong) --counters.running_long;
  ++counters.completed;
  mutex.unlock();
  // From here on the item is its owner's again.
  item.home->post(item.link);
  mutex.lock();
}

// False when the worker has retired.
bool WorkerPool::State::wait_for_work(Worker& self) {
  self.woken = false;
  idle.push_back(&self);
  while (!self.woken && !stopping) {
    if (self.wake.wait_for(mutex, options.idle_retire_ns) || self.woken || stopping) continue;
    if (workers.size() <= min_workers) continue;
    std::erase(idle, &self);
    const auto mine = std::find_if(workers.begin(), workers.end(),
                                   [&self](const auto& worker) { return worker.get() == &self; });
    retired.push_back(std::move(*mine));  // The spawner joins it.
    workers.erase(mine);
    ++counters.retired;
    spawner_wake.notify_one();
    return false;
  }
  return true;
}

Result<void> WorkerPool::State::start_worker() {
  auto worker = std::make_unique<Worker>();
  Worker& self = *worker;
  {
    MutexLock lock(mutex);
    ++starting;
    workers.push_back(std::move(worker));
  }
  // Outside the lock: submitters must not wait for a thread to be created. It has the spawner's
  // CPUs.
  Result<Thread> thread =
      Thread::create({.name = options.name, .sched = options.sched}, [this, &self] { work(self); });
  MutexLock lock(mutex);
  if (!thread) {
    --starting;
    std::erase_if(workers, [&self](const auto& other) { return other.get() == &self; });
    return thread.error();
  }
  self.thread = *std::move(thread);
  ++counters.started;
  return {};
}

Result<void> WorkerPool::State::start_first_workers() {
  for (uint32_t i = 0; i < options.min_workers; ++i) SKIFF_RETURN_IF_ERROR(start_worker());
  return {};
}

void WorkerPool::State::join_retired() {
  while (!retired.empty()) {
    const std::unique_ptr<Worker> gone = std::move(retired.back());
    retired.pop_back();
    mutex.unlock();
    gone->thread.join();
    mutex.lock();
  }
}

void WorkerPool::State::spawn_and_bury() {
  Result<void> started = start_first_workers();
  MutexLock lock(mutex);
  start = std::move(started);
  first_workers.notify_one();
  while (!stopping) {
    join_retired();
    if (!std::exchange(spawn_wanted, false)) {
      // Who rang while the lock was let go of for a join was not heard.
      if (!stopping && retired.empty()) spawner_wake.wait(mutex);
      continue;
    }
    mutex.unlock();
    Result<void> result = start_worker();
    mutex.lock();
    // Those that are there go on; the next submission tries again.
    if (!result)
      SKIFF_LOG_LIMITED(kWarn, "Blocking I/O is slowed down: {}", result.error().message());
  }
  for (const auto& worker : workers) worker->wake.notify_one();
  std::vector<std::unique_ptr<Worker>> last = std::exchange(workers, {});
  mutex.unlock();
  for (const auto& worker : last) worker->thread.join();
  mutex.lock();
  join_retired();
}

WorkerPool::WorkerPool(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<WorkerPool>> WorkerPool::create(Options options) {
  if (options.min_workers < 1 || options.min_workers > options.max_workers) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("A worker pool of {} to {} threads: give at least one, and no more "
                             "at first than at most",
                             options.min_workers, options.max_workers));
  }
  CpuSet cpus = options.cpus;
  if (cpus.empty()) {
    Result<CpuSet> all = CpuSet::of_process();
    if (!all) return all.error();
    cpus = *std::move(all);
  }
  std::unique_ptr<WorkerPool> pool(new WorkerPool(std::make_unique<State>(std::move(options))));
  State& state = *pool->state_;
  {
    MutexLock lock(state.mutex);
    state.min_workers = state.options.min_workers;
    state.max_workers = state.options.max_workers;
  }
  Result<Thread> spawner =
      Thread::create({.name = state.options.name + "-spawn", .cpus = std::move(cpus)},
                     [&state] { state.spawn_and_bury(); });
  if (!spawner) return spawner.error();
  state.spawner = *std::move(spawner);
  MutexLock lock(state.mutex);
  while (!state.start.has_value()) state.first_workers.wait(state.mutex);
  if (!*state.start) {
    const Error error = state.start->error();
    return error;
  }
  return pool;
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(state_->mutex);
    SKIFF_CHECK(state_->counters.queued == 0);  // Their owners wait for `done` first.
    state_->stopping = true;
    state_->spawner_wake.notify_one();
  }
  state_->spawner.join();
}

void WorkerPool::submit(EventLoop& home, WorkItem& item) {
  item.home = &home;
  item.link.item = &item;
  item.link.priority = Priority::kCompletion;
  item.link.run = [](Message& message) {
    WorkItem& ended = item_of(message);
    ended.done(ended);
  };
  MutexLock lock(state_->mutex);
  item.queued = true;
  item.sequence = state_->next_sequence++;
  state_->lane(item.lane).push_back(item.link);
  ++state_->counters.queued;
  state_->find_worker();
}

bool WorkerPool::cancel(WorkItem& item) {
  MutexLock lock(state_->mutex);
  if (!item.queued) return false;
  item.queued = false;
  MessageList::unlink(item.link);
  --state_->counters.queued;
  return true;
}

void WorkerPool::set_limits(uint32_t min_workers, uint32_t max_workers) {
  SKIFF_CHECK(min_workers >= 1 && min_workers <= max_workers);
  MutexLock lock(state_->mutex);
  state_->min_workers = min_workers;
  state_->max_workers = max_workers;
  state_->find_worker();
}

WorkerPool::Counters WorkerPool::counters() const {
  MutexLock lock(state_->mutex);
  Counters counters = state_->counters;
  counters.workers = static_cast<uint32_t>(state_->workers.size());
  counters.idle = static_cast<uint32_t>(state_->idle.size());
  return counters;
}

}  // namespace skiff::loop
