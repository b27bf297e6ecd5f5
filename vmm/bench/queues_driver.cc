// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/queues_driver.h"

#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/thread.h"
#include "vmm/bench/driver/blk_job.h"
#include "vmm/bench/driver/driver_memory.h"
#include "vmm/bench/driver/tick_scale.h"
#include "vmm/bench/queues_target.h"

namespace skiff::vmm {
namespace {

using loop::Result;

// Counted by the eventfd itself, however many there were since the last look.
uint64_t take_interrupts(const loop::EventNotifier& call) {
  uint64_t count = 0;
  const pollfd has_some = {.fd = call.fd(), .events = POLLIN, .revents = 0};
  pollfd asked = has_some;
  // The descriptor blocks: others may want it so.
  if (::poll(&asked, 1, 0) != 1) return 0;
  if (::read(call.fd(), &count, sizeof(count)) != sizeof(count)) return 0;
  return count;
}

void wait_until(const std::atomic<uint32_t>& counter, size_t wanted) {
  for (uint32_t now = counter.load(std::memory_order_acquire); now < wanted;
       now = counter.load(std::memory_order_acquire))
    counter.wait(now, std::memory_order_acquire);
}

}  // namespace

Result<std::unique_ptr<QueuesDriver>> QueuesDriver::create(const Options& options) {
  std::unique_ptr<QueuesDriver> driver(new QueuesDriver(options));
  SKIFF_RETURN_IF_ERROR(driver->start_threads());
  return driver;
}

QueuesDriver::~QueuesDriver() { finish(); }

Result<void> QueuesDriver::start_threads() {
  for (uint32_t i = 0; i < options_.threads; ++i) {
    auto driver = std::make_unique<Driver>();
    driver->index = i;
    auto call = loop::EventNotifier::create();
    if (!call) return call.error();
    driver->call = std::make_unique<loop::EventNotifier>(*std::move(call));
    if (options_.with_loops) {
      auto loop = loop::EventLoop::create({.task_work = loop::EventLoop::TaskWork::kInterrupt});
      if (!loop) return loop.error();
      driver->loop = *std::move(loop);
    }
    drivers_.push_back(std::move(driver));
  }
  for (const auto& driver : drivers_) {
    auto thread = loop::Thread::create({.name = fmt::format("driver{}", driver->index)},
                                       [this, &served = *driver] { serve(served); });
    if (!thread) return thread.error();
    driver->thread = *std::move(thread);
  }
  wait_until(ready_, drivers_.size());
  return {};
}

std::vector<loop::EventLoop*> QueuesDriver::loops() const {
  std::vector<loop::EventLoop*> loops;
  for (const auto& driver : drivers_)
    if (driver->loop) loops.push_back(driver->loop.get());
  return loops;
}

bool QueuesDriver::place(DriverMemory& memory,
                         const std::function<BlkJob::Options(uint32_t queue)>& options) {
  for (uint32_t queue = 0; queue < options_.queues; ++queue) {
    jobs_.push_back(std::make_unique<BlkJob>());
    if (!jobs_.back()->place(memory, options(queue))) return false;
  }
  return true;
}

std::vector<TargetQueue> QueuesDriver::queues() const {
  std::vector<TargetQueue> queues;
  for (uint32_t queue = 0; queue < options_.queues; ++queue)
    queues.push_back({jobs_[queue]->places(), drivers_[queue % options_.threads]->call->fd()});
  return queues;
}

void QueuesDriver::run(QueueTarget& target, const std::function<void()>& on_begin,
                       const std::function<void()>& on_end) {
  target_ = &target;
  on_begin();
  enter(Phase::kRun);
  wait_until(done_, drivers_.size());
  on_end();
}

void QueuesDriver::finish() {
  enter(Phase::kLeave);
  for (const auto& driver : drivers_) driver->thread.join();
}

QueuesDriver::Counts QueuesDriver::counts() const {
  Counts sum;
  for (const auto& driver : drivers_) {
    sum.interrupts += driver->counts.interrupts;
    sum.sleeps += driver->counts.sleeps;
    sum.spins += driver->counts.spins;
  }
  return sum;
}

void QueuesDriver::enter(Phase phase) {
  phase_.store(phase, std::memory_order_release);
  phase_.notify_all();
}

void QueuesDriver::wait_for(Driver& driver, Phase phase) {
  for (Phase now = phase_.load(std::memory_order_acquire); now < phase;
       now = phase_.load(std::memory_order_acquire)) {
    if (driver.loop == nullptr)
      phase_.wait(now, std::memory_order_acquire);
    else if (!driver.loop->run_once(loop::EventLoop::Wait::kNo))
      __builtin_ia32_pause();
  }
}

void QueuesDriver::serve(Driver& driver) {
  // Binds it to this thread.
  if (driver.loop) driver.loop->run_once(loop::EventLoop::Wait::kNo);
  ready_.fetch_add(1, std::memory_order_release);
  ready_.notify_one();
  wait_for(driver, Phase::kRun);
  if (phase_.load(std::memory_order_acquire) == Phase::kRun) {
    run_jobs(driver);
    driver.counts.interrupts += take_interrupts(*driver.call);
    done_.fetch_add(1, std::memory_order_release);
    done_.notify_one();
  }
  wait_for(driver, Phase::kLeave);
  driver.loop.reset();
}

void QueuesDriver::run_jobs(Driver& driver) {
  const TickScale scale(options_.tsc_khz);
  BlkJob::Span span;
  span.begin = tick_now();
  span.measure_from = span.begin + scale.to_ticks(static_cast<uint64_t>(options_.warm_up_ns));
  span.until = span.measure_from + scale.to_ticks(static_cast<uint64_t>(options_.duration_ns));
  for (uint32_t queue = driver.index; queue < options_.queues; queue += options_.threads)
    jobs_[queue]->start(span);
  while (true) {
    bool idle = true;
    if (turn_jobs(driver, idle)) return;
    if (driver.loop && driver.loop->run_once(loop::EventLoop::Wait::kNo)) continue;
    if (!idle) continue;
    ++driver.counts.spins;
    if (options_.irq)
      sleep(driver);
    else
      __builtin_ia32_pause();
  }
}

// True when all of this thread's jobs have ended.
bool QueuesDriver::turn_jobs(Driver& driver, bool& idle) {
  bool ended = true;
  for (uint32_t queue = driver.index; queue < options_.queues; queue += options_.threads) {
    BlkJob& job = *jobs_[queue];
    job.look();
    const BlkJob::Turn turn = job.turn(tick_now());
    if (turn.kick) target_->kick(static_cast<uint16_t>(queue));
    if (turn.taken != 0 || turn.sent != 0) idle = false;
    if (!job.has_ended()) ended = false;
  }
  return ended;
}

void QueuesDriver::sleep(Driver& driver) {
  uint64_t wake_at = kNeverTick;
  for (uint32_t queue = driver.index; queue < options_.queues; queue += options_.threads) {
    if (jobs_[queue]->enable_interrupts()) return;
    wake_at = std::min(wake_at, jobs_[queue]->next_tick());
  }
  // The device's completions come through the loop, which sleeps in their stead; a request that is
  // due is waited for in short naps there.
  timespec left = {};
  if (wake_at != kNeverTick) {
    const uint64_t now = tick_now();
    const uint64_t left_ns =
        wake_at > now ? TickScale(options_.tsc_khz).to_ns(wake_at - now) : uint64_t{0};
    left = {.tv_sec = static_cast<time_t>(left_ns / 1'000'000'000),
            .tv_nsec = static_cast<long>(left_ns % 1'000'000'000)};
    if (left_ns == 0) return;
  }
  ++driver.counts.sleeps;
  if (driver.loop) {
    if (wake_at != kNeverTick) return __builtin_ia32_pause();
    driver.loop->run_once(loop::EventLoop::Wait::kUntilEvent);
    driver.counts.interrupts += take_interrupts(*driver.call);
    return;
  }
  pollfd watched = {.fd = driver.call->fd(), .events = POLLIN, .revents = 0};
  if (::ppoll(&watched, 1, wake_at == kNeverTick ? nullptr : &left, nullptr) > 0)
    driver.counts.interrupts += take_interrupts(*driver.call);
}

}  // namespace skiff::vmm
