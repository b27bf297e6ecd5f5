// SPDX-License-Identifier: GPL-2.0-or-later
// Random schedules of a disk with several queues (queue_schedule.h), with loops that turn one turn
// at a time, and requests that complete in any order and with errors when luck says so. All of it
// on the test's thread, so a seed repeats its schedule.
//
// SKIFF_SIM_SEED=N runs one again, SKIFF_QUEUE_SCHEDULES=N that many from a random one on.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "block/testing/fake_channel.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"
#include "tests/sim/environment.h"
#include "tests/sim/queue_schedule.h"

namespace skiff::sim {
namespace {

constexpr size_t kLoops = 3;
constexpr int kSteps = 300;
// The greater part of the schedules is run with threads, under the thread sanitizer.
constexpr uint64_t kDefaultSchedules = 2000;

class Schedules {
 public:
  ~Schedules() {
    schedule_.begin_end(/*unplug=*/true);
    for (int round = 0; round < 20 && !schedule_.has_ended(); ++round) turn_all();
  }

  void run(uint64_t seed) {
    schedule_.begin(seed);
    for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) {
      act();
      schedule_.poll();
    }
    if (!::testing::Test::HasFailure()) finish();
  }
  QueueSchedule::Totals totals() const { return schedule_.totals(); }

 private:
  void act() {
    const uint64_t dice = schedule_.pick(1, 100);
    if (dice <= 40) return turn_one();
    if (dice <= 55) return complete_one();
    schedule_.act();
  }

  void turn_one() {
    const uint64_t which = schedule_.pick(0, kLoops);
    loop::EventLoop& loop = which == kLoops ? main_.loop() : loops_[which].loop();
    loop.run_once(loop::EventLoop::Wait::kNo);
  }
  void turn_all() {
    for (int round = 0; round < 6; ++round) {
      for (auto& loop : loops_) loop.run_until_idle();
      main_.run_until_idle();
    }
    schedule_.poll();
  }

  void complete_one() {
    if (!image_.has_channel()) return;
    block::FakeChannel& channel =
        *image_.channels()[schedule_.pick(0, image_.channels().size() - 1)];
    if (channel.in_flight() == 0) return;
    const uint64_t index = schedule_.pick(0, channel.in_flight() - 1);
    if (schedule_.chance(15)) return channel.fail(index, -EIO);
    channel.complete(index);
  }
  void complete_all() {
    for (block::FakeChannel* channel : image_.channels())
      while (channel->in_flight() > 0) channel->complete(0);
  }

  void expect_nothing_in_flight() {
    for (const block::FakeChannel* channel : image_.channels())
      EXPECT_EQ(channel->in_flight(), 0u) << "drained, and requests are in flight";
  }

  void finish() {
    schedule_.calm_down();
    for (int round = 0; round < 40 && !schedule_.is_quiet(); ++round) {
      turn_all();
      complete_all();
    }
    turn_all();
    EXPECT_TRUE(schedule_.is_quiet()) << "requests are never answered";
    schedule_.begin_end(/*unplug=*/false);
    turn_all();
    EXPECT_TRUE(schedule_.has_ended());
    EXPECT_FALSE(image_.has_channel()) << "a channel was left behind";
    schedule_.check(image_.bytes());
  }

  std::vector<loop::ManualLoop> loops_{kLoops};
  loop::ManualLoop main_;
  block::FakeBackend image_{{.sectors = QueueSchedule::kSectors}};
  QueueSchedule schedule_{{.main_loop = &main_.loop(),
                           .homes = {&loops_[0].loop(), &loops_[1].loop(), &loops_[2].loop()},
                           .image = &image_,
                           .drained = [this] { expect_nothing_in_flight(); }}};
};

TEST(QueueSimTest, NoScheduleLosesARequestOrLeavesOneBehind) {
  loop::set_log_level(loop::LogLevel::kOff);
  uint64_t first = 1;
  uint64_t count = kDefaultSchedules;
  if (const auto schedules = environment("SKIFF_QUEUE_SCHEDULES")) {
    first = std::random_device{}();
    count = *schedules;
  }
  if (const auto seed = environment("SKIFF_SIM_SEED")) {
    first = *seed;
    count = 1;
  }
  Schedules schedules;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("run it again with SKIFF_SIM_SEED=" + std::to_string(seed));
    schedules.run(seed);
    if (::testing::Test::HasFailure()) break;
  }
  schedules.totals().expect_enough_for(count);
  loop::set_log_level(loop::LogLevel::kWarn);
}

}  // namespace
}  // namespace skiff::sim
