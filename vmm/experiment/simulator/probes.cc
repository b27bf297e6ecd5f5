// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/simulator/probes.h"

#include <linux/io_uring.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/io_engine.h"
#include "block/open_image.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/io_thread.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "vmm/bench/statistics.h"
#include "vmm/experiment/simulator/host_costs.h"
#include "vmm/experiment/simulator/on_loop.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::EventLoop;
using loop::Result;

constexpr int kPings = 1500;
constexpr int64_t kPingEveryNs = 150'000;
constexpr int kTimers = 400;
constexpr int64_t kTimerNs = 200'000;
constexpr uint32_t kDeep = 32;
constexpr uint64_t kRingTurns = 20'000;
constexpr uint64_t kBlockRequests = 300'000;

// One thread asks another now and then, which answers at once; each sleeps until it is told. Not
// one question after the other: a thread that has slept for a while finds its CPU idle and cold.
class PingPong {
 public:
  static Result<HostCosts> run(HostCosts costs) {
    // On two CPUs where there are two: what one pays for who waits on its own is another matter.
    const auto cpus = usable_cpus();
    if (!cpus) return cpus.error();
    auto here = loop::IoThread::create({.name = "probe-a", .cpus = cpus->front()});
    if (!here) return here.error();
    auto there = loop::IoThread::create({.name = "probe-b", .cpus = cpus->back()});
    if (!there) return there.error();
    auto to_here = loop::EventNotifier::create();
    if (!to_here) return to_here.error();
    auto to_there = loop::EventNotifier::create();
    if (!to_there) return to_there.error();
    PingPong game((*here)->loop(), (*there)->loop(), *to_here, *to_there);
    game.play();
    const double round_ns = median_of(game.round_ns_);
    costs.notify_ns = median_of(game.notify_ns_);
    // All of a turn but what telling took. Which part of it lies before the answer cannot be seen
    // from here: half.
    const double turn_ns = std::max(0.0, median_of(game.turn_ns_) - costs.notify_ns);
    costs.turn_ns = costs.sleep_ns = turn_ns / 2;
    costs.wake_ns = std::max(0.0, round_ns / 2 - costs.notify_ns - costs.turn_ns);
    costs.timer_ns = std::max(0.0, game.timer_lateness_ns() - costs.turn_ns);
    return costs;
  }

 private:
  PingPong(EventLoop& here, EventLoop& there, const loop::EventNotifier& to_here,
           const loop::EventNotifier& to_there)
      : here_(here), there_(there), to_here_(to_here), to_there_(to_there) {}

  void play() {
    std::optional<loop::NotifierWatch> asker;
    std::optional<loop::NotifierWatch> answerer;
    std::optional<loop::Timer> next;
    std::binary_semaphore over(0);
    run_on_loop(there_, [&] {
      answerer.emplace(there_, to_there_, loop::Priority::kCompletion, [this] {
        // By CPU time: whoever is told may run at once, on this very CPU.
        const int64_t begin_ns = thread_cpu_ns();
        to_here_.notify();
        const int64_t end_ns = thread_cpu_ns();
        notify_ns_.push_back(static_cast<double>(end_ns - begin_ns));
        if (last_cpu_ns_ != 0) turn_ns_.push_back(static_cast<double>(end_ns - last_cpu_ns_));
        last_cpu_ns_ = end_ns;
      });
    });
    run_on_loop(here_, [&] {
      asker.emplace(here_, to_here_, loop::Priority::kCompletion, [&] {
        round_ns_.push_back(static_cast<double>(here_.now_ns() - asked_ns_));
        if (round_ns_.size() == kPings) return over.release();
        next->arm_after(kPingEveryNs);
      });
      next.emplace(here_, loop::Priority::kDevice, [this] { ask(); });
      ask();
    });
    over.acquire();
    run_on_loop(there_, [&] { answerer.reset(); });
    run_on_loop(here_, [&] {
      next.reset();
      asker.reset();
    });
  }

  void ask() {
    asked_ns_ = here_.now_ns();
    to_there_.notify();
  }

  double timer_lateness_ns() {
    std::vector<double> late_ns;
    std::binary_semaphore over(0);
    std::optional<loop::Timer> timer;
    run_on_loop(here_, [&] {
      timer.emplace(here_, loop::Priority::kRealTime, [&] {
        late_ns.push_back(static_cast<double>(here_.now_ns() - due_ns_));
        if (late_ns.size() == kTimers) return over.release();
        arm(*timer);
      });
      arm(*timer);
    });
    over.acquire();
    run_on_loop(here_, [&] { timer.reset(); });
    return median_of(late_ns);
  }

  void arm(loop::Timer& timer) {
    due_ns_ = here_.now_ns() + kTimerNs;
    timer.arm_at(due_ns_);
  }

  EventLoop& here_;
  EventLoop& there_;
  const loop::EventNotifier& to_here_;
  const loop::EventNotifier& to_there_;
  int64_t asked_ns_ = 0;
  int64_t due_ns_ = 0;
  std::vector<double> round_ns_;
  std::vector<double> notify_ns_;
  std::vector<double> turn_ns_;  // CPU time from one answer to the next.
  int64_t last_cpu_ns_ = 0;
};

struct Nop : loop::RingOperation {
  uint32_t* ended = nullptr;
};

// The time of a turn that hands over `depth` operations which end at once, and reaps them.
double ring_turn_ns(EventLoop& loop, uint32_t depth) {
  std::array<Nop, kDeep> nops;
  uint32_t ended = 0;
  for (Nop& nop : nops) {
    nop.ended = &ended;
    nop.done = [](loop::RingOperation& operation, int32_t, uint32_t) {
      ++*static_cast<Nop&>(operation).ended;
    };
  }
  const int64_t begin_ns = loop.now_ns();
  for (uint64_t turn = 0; turn < kRingTurns; ++turn) {
    ended = 0;
    for (uint32_t i = 0; i < depth; ++i) {
      io_uring_sqe* sqe = loop.next_sqe(nops[i]);
      const uint64_t user_data = sqe->user_data;
      *sqe = {};
      sqe->user_data = user_data;
      sqe->opcode = IORING_OP_NOP;
    }
    while (ended < depth) loop.run_once(EventLoop::Wait::kUntilEvent);
  }
  return static_cast<double>(loop.now_ns() - begin_ns) / kRingTurns;
}

// Keeps requests to a null device under way: each that ends is in the next batch again.
struct NullLoad {
  std::array<block::BlockRequest, kDeep> requests;
  std::vector<block::BlockRequest*> batch;
  uint64_t ended = 0;
};

}  // namespace

Result<void> probe_threads(HostCosts& costs) {
  const auto probed = PingPong::run(costs);
  if (!probed) return probed.error();
  costs = *probed;
  return {};
}

Result<void> probe_ring(HostCosts& costs) {
  auto loop = EventLoop::create();
  if (!loop) return loop.error();
  if (!(*loop)->uses_io_uring())
    return Error(ErrorKind::kUnsupported, "The ring: this kernel refuses io_uring");
  const double one_ns = ring_turn_ns(**loop, 1);
  const double many_ns = ring_turn_ns(**loop, kDeep);
  costs.op_ns = std::max(0.0, (many_ns - one_ns) / (kDeep - 1));
  costs.enter_ns = std::max(0.0, one_ns - costs.op_ns);
  return {};
}

Result<void> probe_block_layer(HostCosts& costs) {
  auto loop = EventLoop::create();
  if (!loop) return loop.error();
  auto pool = loop::WorkerPool::create({.name = "probe-pool"});
  if (!pool) return pool.error();
  const auto engine =
      (*loop)->uses_io_uring() ? block::IoEngineKind::kIoUring : block::IoEngineKind::kSync;
  auto image = block::open_image({.path = "null:size=1G", .engine = engine}, **pool);
  if (!image) return image.error();
  auto channel = (*image)->open_channel(**loop);
  if (!channel) return channel.error();
  NullLoad load;
  std::array<std::byte, 4096> memory;
  const iovec part = {memory.data(), memory.size()};
  for (block::BlockRequest& request : load.requests) {
    request.length_bytes = memory.size();
    request.iov = {&part, 1};
    request.owner = &load;
    request.done = [](block::BlockRequest& ended, int32_t) {
      auto& own = *static_cast<NullLoad*>(ended.owner);
      ++own.ended;
      own.batch.push_back(&ended);
    };
    load.batch.push_back(&request);
  }
  std::vector<block::BlockRequest*> batch;
  const int64_t begin_ns = (*loop)->now_ns();
  while (load.ended < kBlockRequests) {
    batch.swap(load.batch);
    if (!batch.empty()) (*channel)->submit(batch);
    batch.clear();
    (*loop)->run_once(EventLoop::Wait::kUntilEvent);
  }
  costs.request_ns =
      static_cast<double>((*loop)->now_ns() - begin_ns) / static_cast<double>(load.ended);
  while ((*channel)->in_flight() != 0) (*loop)->run_once(EventLoop::Wait::kUntilEvent);
  channel->reset();
  pool->reset();
  return {};
}

Result<ProbedCosts> probe_host_costs() {
  ProbedCosts probed;
  const auto note = [&](const Result<void>& result) {
    if (!result) probed.notes.push_back(fmt::format("{}: assumed", result.error().message()));
  };
  SKIFF_RETURN_IF_ERROR(probe_threads(probed.costs));
  SKIFF_RETURN_IF_ERROR(probe_block_layer(probed.costs));
  note(probe_ring(probed.costs));
  note(probe_virtqueue(probed.costs));
  note(probe_cores(probed.costs));
  note(probe_kvm(probed.costs));
  return probed;
}

}  // namespace skiff::vmm
