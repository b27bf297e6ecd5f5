// SPDX-License-Identifier: GPL-2.0-or-later
// Random schedules of a disk with several queues (queue_schedule.h) with real threads: the loops
// turn by themselves while this thread is guest and operator, over a real file whose requests are
// delayed and fail at random. What matters besides the data is what the thread sanitizer says.
//
// SKIFF_THREAD_SCHEDULES=N runs that many, from a random seed on or from SKIFF_SIM_SEED. A seed
// repeats what is done, not who is faster.
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"
#include "tests/sim/environment.h"
#include "tests/sim/memory_disk.h"
#include "tests/sim/queue_schedule.h"
#include "tests/sim/queue_slots.h"

namespace skiff::sim {
namespace {

constexpr size_t kThreads = 3;
constexpr int kSteps = 80;
constexpr uint64_t kPauseMaxUs = 60;
constexpr uint64_t kDefaultSchedules = 400;
constexpr auto kPatience = std::chrono::seconds(60);

class ThreadSchedules {
 public:
  ThreadSchedules() {
    for (size_t i = 0; i < kThreads; ++i)
      threads_.push_back(
          *loop::IoThread::create({.name = "io" + std::to_string(i), .loop = loop_options(i)}));
    std::vector<loop::EventLoop*> homes;
    for (const auto& thread : threads_) homes.push_back(&thread->loop());
    schedule_.emplace(QueueSchedule::World{.main_loop = &main_.loop(),
                                           .homes = homes,
                                           .image = &disk_.image(),
                                           .kicks_at_home = true});
  }
  ~ThreadSchedules() {
    end(/*unplug=*/true);
    schedule_.reset();
  }

  void run(uint64_t seed) {
    schedule_->begin(seed);
    for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) {
      schedule_->act();
      if (schedule_->chance(25)) let_others_run();
      main_.run_until_idle();
      schedule_->poll();
    }
    if (!::testing::Test::HasFailure()) finish();
  }
  QueueSchedule::Totals totals() const { return schedule_->totals(); }

 private:
  // The last of them is a vCPU's, as far as its ring goes.
  static loop::EventLoop::Options loop_options(size_t thread) {
    if (thread + 1 < kThreads) return {};
    return {.task_work = loop::EventLoop::TaskWork::kInterrupt};
  }

  // For some time, so that steps meet what earlier ones have led to at any point.
  void let_others_run() {
    const auto until = std::chrono::steady_clock::now() +
                       std::chrono::microseconds(schedule_->pick(1, kPauseMaxUs));
    do std::this_thread::yield();
    while (std::chrono::steady_clock::now() < until);
  }

  template <typename Condition>
  void wait_for(const Condition& condition) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), until) << "it does not come to its end";
      main_.run_until_idle();
      schedule_->poll();
      std::this_thread::yield();
    }
  }
  void end(bool unplug) {
    schedule_->begin_end(unplug);
    wait_for([this] { return schedule_->has_ended(); });
  }
  void finish() {
    schedule_->calm_down();
    wait_for([this] { return schedule_->is_quiet(); });
    end(/*unplug=*/false);
    schedule_->check(disk_.bytes());
  }

  std::vector<std::unique_ptr<loop::IoThread>> threads_;
  loop::ManualLoop main_;
  MemoryDisk disk_{QueueSchedule::kSectors * QueueSlots::kSectorBytes,
                   "seed=1;p=0.2,delay=50us;op=write,p=0.1,error=EIO"};
  std::optional<QueueSchedule> schedule_;
};

TEST(QueueThreadSimTest, NoScheduleLosesARequestOrLeavesOneBehind) {
  loop::set_log_level(loop::LogLevel::kOff);
  const std::optional<uint64_t> given = environment("SKIFF_THREAD_SCHEDULES");
  const uint64_t count = given.value_or(kDefaultSchedules);
  const uint64_t first = environment("SKIFF_SIM_SEED").value_or(given ? std::random_device{}() : 1);
  {
    ThreadSchedules schedules;
    for (uint64_t seed = first; seed < first + count; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      schedules.run(seed);
      if (::testing::Test::HasFailure()) break;
    }
    schedules.totals().expect_enough_for(count);
  }
  loop::set_log_level(loop::LogLevel::kWarn);
}

}  // namespace
}  // namespace skiff::sim
