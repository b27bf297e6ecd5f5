// SPDX-License-Identifier: GPL-2.0-or-later
// Random schedules of a virtio-blk device with several queues: requests, kicks that come late,
// completions in any order and with errors, moves between loops and modes, drains, stops, resets of
// queues, turns of the loops, in every order that luck finds. Nothing may be lost, answered twice,
// left behind, or found changed on the disk.
//
// The loops turn on the test's thread, one turn at a time, so a seed repeats its schedule.
// SKIFF_SIM_SEED=N runs one again, SKIFF_QUEUE_SCHEDULES=N that many from a random one on.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "block/drain.h"
#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/testing/manual_loop.h"
#include "tests/sim/queue_slots.h"

namespace skiff::sim {
namespace {

using devices::DoorbellPath;
using devices::GuestDriver;
using devices::QueueHome;
using devices::QueueIndex;
using devices::SubmitMode;

constexpr size_t kQueues = 3;
constexpr size_t kLoops = 3;
constexpr int kSteps = 60;
constexpr uint64_t kDefaultSchedules = 20'000;

class Schedules {
 public:
  Schedules() {
    for (size_t i = 0; i < kQueues; ++i)
      queues_.emplace_back(memory_.memory(), devices::GuestAddress{i * QueueSlots::kArenaBytes},
                           i * QueueSlots::kSlots);
    device_ = *devices::VirtioBlk::create(
        {.queues = std::vector<QueueHome>(kQueues, {&loops_[0].loop(), SubmitMode::kIoThread}),
         .memory = &memory_.memory(),
         .image = &image_,
         .queue_size = QueueSlots::kQueueSize,
         .errors = {.read = block::ErrorPolicy::kReport, .write = block::ErrorPolicy::kStop}});
    device_->attach(transport_);
    for (size_t i = 0; i < kQueues; ++i)
      point_.join(device_->drain_party(static_cast<QueueIndex>(i)), main_, std::to_string(i));
  }
  ~Schedules() {
    for (size_t i = 0; i < kQueues; ++i)
      point_.leave(device_->drain_party(static_cast<QueueIndex>(i)), [] {});
    turn_all();
  }

  void run(uint64_t seed) {
    random_.seed(seed);
    ring_features_ = chance(50) ? devices::kVirtioRingEventIdx : 0;
    indirect_ = chance(50);
    if (indirect_) ring_features_ |= devices::kVirtioRingIndirectDesc;
    for (size_t i = 0; i < kQueues; ++i) move(static_cast<QueueIndex>(i));
    start();
    for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) act();
    if (!::testing::Test::HasFailure()) finish();
  }

  uint64_t answered() const { return total(&QueueSlots::answered); }
  uint64_t failed() const { return total(&QueueSlots::failed); }
  uint64_t moved() const {
    uint64_t sum = 0;
    for (size_t i = 0; i < kQueues; ++i)
      sum += device_->queue_stats(static_cast<QueueIndex>(i)).moves;
    return sum;
  }

 private:
  enum class State : uint8_t { kRunning, kEnding, kEnded };
  struct Kick {
    QueueIndex queue = 0;
    DoorbellPath path = DoorbellPath::kKernel;
  };

  uint64_t pick(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  bool chance(uint64_t percent) { return pick(1, 100) <= percent; }
  QueueIndex pick_queue() { return static_cast<QueueIndex>(pick(0, kQueues - 1)); }
  uint64_t total(uint64_t (QueueSlots::*what)() const) const {
    uint64_t sum = 0;
    for (const QueueSlots& queue : queues_) sum += (queue.*what)();
    return sum;
  }
  static void expect_right(const std::optional<std::string>& wrong) {
    EXPECT_FALSE(wrong) << *wrong;
  }

  void act() {
    const uint64_t dice = pick(1, 100);
    if (dice <= 30) return offer();
    if (dice <= 40) return deliver_kick();
    if (dice <= 65) return turn_one();
    if (dice <= 80) return complete_one();
    if (dice <= 88) return move(pick_queue());
    if (dice <= 92) return drain();
    if (dice <= 94) return device_->retry_failed();
    if (dice <= 97) return reset_queue();
    return stop_or_start();
  }

  void offer() {
    const QueueIndex queue = pick_queue();
    // Also into a ring that nobody looks at any more: a driver that does not wait for its reset.
    if (device_state_ == State::kEnded || queue_state_[queue] == State::kEnded) return;
    const bool indirect = indirect_ && chance(50);
    if (!queues_[queue].offer(chance(50), indirect ? GuestDriver::Placement::kIndirect
                                                   : GuestDriver::Placement::kDirect))
      return;
    if (queues_[queue].driver().kick_wanted())
      kicks_.push_back({queue, transport_.doorbell_path(queue)});
    if (chance(60)) deliver_kick();
  }

  // One that the guest made some time ago.
  void deliver_kick() {
    if (kicks_.empty()) return;
    const auto at = kicks_.begin() + static_cast<ptrdiff_t>(pick(0, kicks_.size() - 1));
    const Kick kick = *at;
    kicks_.erase(at);
    if (kick.path == DoorbellPath::kExit)
      device_->kick(kick.queue);
    else
      device_->doorbell(kick.queue).notify();
  }

  void turn_one() {
    const uint64_t which = pick(0, kLoops);
    loop::EventLoop& loop = which == kLoops ? main_.loop() : loops_[which].loop();
    loop.run_once(loop::EventLoop::Wait::kNo);
    collect();
  }

  void turn_all() {
    for (int round = 0; round < 6; ++round) {
      for (auto& loop : loops_) loop.run_until_idle();
      main_.run_until_idle();
    }
    collect();
  }

  void collect() {
    for (size_t i = 0; i < kQueues; ++i)
      if (device_state_ == State::kRunning && queue_state_[i] == State::kRunning)
        expect_right(queues_[i].collect());
  }

  void complete_one() {
    if (!image_.has_channel()) return;
    block::FakeChannel& channel = *image_.channels()[pick(0, image_.channels().size() - 1)];
    if (channel.in_flight() == 0) return;
    const uint64_t index = pick(0, channel.in_flight() - 1);
    if (chance(15)) return channel.fail(index, -EIO);
    channel.complete(index);
  }

  void move(QueueIndex queue) {
    constexpr SubmitMode kModes[] = {SubmitMode::kIoThread, SubmitMode::kVcpu, SubmitMode::kPoll};
    ++moves_begun_;
    device_->move_queue(queue, {&loops_[pick(0, kLoops - 1)].loop(), kModes[pick(0, 2)]},
                        [this] { ++moves_ended_; });
  }

  void drain() {
    if (drains_.empty() || chance(40)) {
      ++drains_begun_;
      drains_.push_back(point_.begin([this] {
        for (const block::FakeChannel* channel : image_.channels())
          EXPECT_EQ(channel->in_flight(), 0u) << "drained, and requests are in flight";
      }));
      return;
    }
    point_.end(drains_.back());
    drains_.pop_back();
  }

  void reset_queue() {
    const QueueIndex queue = pick_queue();
    if (device_state_ != State::kRunning) return;
    if (queue_state_[queue] == State::kEnded) {
      queue_state_[queue] = State::kRunning;
      return device_->start_queue(queue, queues_[queue].restart(ring_features_));
    }
    if (queue_state_[queue] == State::kEnding) return;
    queue_state_[queue] = State::kEnding;
    device_->reset_queue(queue, [this, queue] {
      expect_right(queues_[queue].settle());
      queue_state_[queue] = State::kEnded;
    });
  }

  void stop_or_start() {
    if (device_state_ == State::kEnded) return start();
    if (device_state_ == State::kRunning) stop();
  }
  void start() {
    devices::VirtioStart start{.features = ring_features_ | devices::kVirtioVersion1, .queues = {}};
    for (size_t i = 0; i < kQueues; ++i) {
      start.queues.push_back(queues_[i].restart(ring_features_));
      queue_state_[i] = State::kRunning;
    }
    device_state_ = State::kRunning;
    device_->start(start);
  }
  void stop() {
    device_state_ = State::kEnding;
    device_->stop([this] {
      for (size_t i = 0; i < kQueues; ++i) {
        EXPECT_NE(queue_state_[i], State::kEnding) << "stopped before the reset of its queue";
        expect_right(queues_[i].settle());
        queue_state_[i] = State::kEnded;
      }
      device_state_ = State::kEnded;
    });
  }

  // Nobody disturbs any more: everything has to come to its end, with the kicks there were.
  void finish() {
    while (!drains_.empty()) {
      point_.end(drains_.back());
      drains_.pop_back();
    }
    while (!kicks_.empty()) deliver_kick();
    for (int round = 0; round < 40 && !is_quiet(); ++round) {
      turn_all();
      device_->retry_failed();
      for (block::FakeChannel* channel : image_.channels())
        while (channel->in_flight() > 0) channel->complete(0);
    }
    turn_all();
    EXPECT_TRUE(is_quiet()) << "requests are never answered";
    EXPECT_EQ(moves_ended_, moves_begun_);
    for (size_t i = 0; i < kQueues; ++i) EXPECT_NE(queue_state_[i], State::kEnding);
    if (device_state_ == State::kRunning) stop();
    turn_all();
    EXPECT_EQ(device_state_, State::kEnded);
    EXPECT_FALSE(image_.has_channel()) << "a channel was left behind";
    EXPECT_FALSE(transport_.reset_requested());
    for (const QueueSlots& queue : queues_) expect_right(queue.check(image_.bytes()));
  }
  bool is_quiet() const {
    if (device_state_ == State::kEnding) return false;
    if (device_state_ == State::kEnded) return true;
    for (size_t i = 0; i < kQueues; ++i)
      if (queue_state_[i] == State::kEnding ||
          (queue_state_[i] == State::kRunning && queues_[i].busy() > 0))
        return false;
    return true;
  }

  std::mt19937_64 random_;
  std::vector<loop::ManualLoop> loops_{kLoops};
  loop::ManualLoop main_;
  devices::FakeGuestMemory memory_{kQueues * QueueSlots::kArenaBytes};
  devices::FakeTransport transport_;
  block::FakeBackend image_{{.sectors = kQueues * QueueSlots::kSlots}};
  block::DrainPoint point_{main_, "schedules"};
  std::vector<QueueSlots> queues_;
  std::unique_ptr<devices::VirtioBlk> device_;

  uint64_t ring_features_ = 0;
  bool indirect_ = false;
  State device_state_ = State::kEnded;
  State queue_state_[kQueues] = {State::kEnded, State::kEnded, State::kEnded};
  std::deque<Kick> kicks_;
  std::vector<block::DrainPoint::DrainId> drains_;
  uint64_t drains_begun_ = 0;
  uint64_t moves_begun_ = 0;
  uint64_t moves_ended_ = 0;
};

std::optional<uint64_t> environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

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
  // The schedules do what they are for.
  if (count > 100) {
    EXPECT_GT(schedules.answered(), count);
    EXPECT_GT(schedules.failed(), count / 10);
    EXPECT_GT(schedules.moved(), count / 2);
  }
  loop::set_log_level(loop::LogLevel::kWarn);
}

}  // namespace
}  // namespace skiff::sim
