// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/sim/queue_schedule.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "block/drain.h"
#include "block/error_policy.h"
#include "devices/core/guest_memory.h"
#include "devices/pci/pci_bus.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "tests/sim/disk_rig.h"
#include "tests/sim/queue_slots.h"

namespace skiff::sim {

using devices::DoorbellPath;
using devices::GuestDriver;
using devices::QueueIndex;
using devices::SubmitMode;

namespace {

constexpr uint64_t kRequiredFeatures = devices::kVirtioVersion1 | devices::kVirtioRingReset;

void expect_right(const std::optional<std::string>& wrong) { EXPECT_FALSE(wrong) << *wrong; }

}  // namespace

QueueSchedule::QueueSchedule(const World& world)
    : world_(world),
      rig_({.main_loop = world.main_loop,
            .memory = &memory_.memory(),
            .image = world.image,
            .home = {world.homes.front(), SubmitMode::kIoThread},
            .queue_size = QueueSlots::kQueueSize,
            .errors = {.read = block::ErrorPolicy::kReport, .write = block::ErrorPolicy::kStop}}) {
  for (size_t i = 0; i < kQueues; ++i)
    queues_.emplace_back(memory_.memory(), devices::GuestAddress{i * QueueSlots::kArenaBytes},
                         i * QueueSlots::kSlots);
  queue_states_.fill(State::kEnded);
}

void QueueSchedule::begin(uint64_t seed) {
  random_.seed(seed);
  ring_features_ = chance(50) ? devices::kVirtioRingEventIdx : 0;
  if (chance(50)) ring_features_ |= devices::kVirtioRingIndirectDesc;
  bring_up();
}

void QueueSchedule::act() {
  const uint64_t dice = pick(1, 100);
  if (dice <= 45) return offer();
  if (dice <= 57) return deliver_kick();
  if (dice <= 68) return move(pick_queue());
  if (dice <= 74) return drain();
  if (dice <= 77) return has_driver() ? rig_.disk().retry_failed() : void();
  if (dice <= 83) return reset_queue();
  if (dice <= 86) return stop();
  // What is down does not stay so for long.
  if (dice <= 88) return has_driver() ? unplug() : bring_up();
  if (dice <= 92) return device_state_ == State::kRunning ? offer() : bring_up();
  change_interrupts();
}

// Requests and kicks -----------------------------------------------------------------------------

void QueueSchedule::offer() {
  const QueueIndex queue = pick_queue();
  // Also into a ring that nobody looks at any more: a driver that does not wait for its reset.
  if (device_state_ == State::kEnded || queue_states_[queue] == State::kEnded) return;
  const bool indirect = (ring_features_ & devices::kVirtioRingIndirectDesc) != 0 && chance(50);
  if (!queues_[queue].offer(chance(50), indirect ? GuestDriver::Placement::kIndirect
                                                 : GuestDriver::Placement::kDirect))
    return;
  if (queues_[queue].driver().kick_wanted() && has_driver())
    kicks_.push_back({queue, rig_.doorbell_path(queue)});
  if (chance(60)) deliver_kick();
}

// One that the guest made some time ago.
void QueueSchedule::deliver_kick() {
  if (kicks_.empty()) return;
  const auto at = kicks_.begin() + static_cast<ptrdiff_t>(pick(0, kicks_.size() - 1));
  const Kick kick = *at;
  kicks_.erase(at);
  deliver(kick);
}

void QueueSchedule::deliver(const Kick& kick) {
  if (kick.path == DoorbellPath::kKernel || !world_.kicks_at_home || chance(50))
    return rig_.deliver_kick(kick.queue, kick.path);
  // The vCPU that rings is the home, or was when it did.
  kicks_under_way_.fetch_add(1);
  rig_.disk().queue_home(kick.queue).loop->post([this, kick] {
    rig_.deliver_kick(kick.queue, kick.path);
    kicks_under_way_.fetch_sub(1);
  });
}

// The operator -----------------------------------------------------------------------------------

void QueueSchedule::move(QueueIndex queue) {
  constexpr SubmitMode kModes[] = {SubmitMode::kIoThread, SubmitMode::kVcpu, SubmitMode::kPoll};
  if (!has_driver()) return;
  moves_under_way_.fetch_add(1);
  rig_.disk().move_queue(queue,
                         {world_.homes[pick(0, world_.homes.size() - 1)], kModes[pick(0, 2)]},
                         [this] { moves_under_way_.fetch_sub(1); });
}

void QueueSchedule::drain() {
  if (drains_.empty() || chance(20)) {
    drains_.push_back(rig_.drain_point().begin([this] {
      if (world_.drained) world_.drained();
    }));
    return;
  }
  rig_.drain_point().end(drains_.back());
  drains_.pop_back();
}

void QueueSchedule::bring_up() {
  if (rig_.is_leaving() || device_state_ != State::kEnded) return;
  if (!rig_.is_plugged()) {
    rig_.plug();
    for (QueueIndex queue = 0; queue < kQueues; ++queue) move(queue);
  }
  start();
}

void QueueSchedule::unplug() {
  const bool pulled = chance(50);
  note_moves();
  rig_.take_out(pulled ? devices::PciBus::Removal::kSurprise : devices::PciBus::Removal::kEjected);
  // No vCPU is inside a register from here on.
  while (kicks_under_way_.load() != 0) {
  }
  kicks_.clear();
  device_state_ = State::kEnding;
  ++unplugged_;
  rig_.begin_leaving();
}

// Resets and interrupts --------------------------------------------------------------------------

void QueueSchedule::reset_queue() {
  const QueueIndex queue = pick_queue();
  if (device_state_ != State::kRunning || queue_states_[queue] == State::kEnding) return;
  if (queue_states_[queue] == State::kEnded) {
    queue_states_[queue] = State::kRunning;
    return rig_.start_queue(queue, queues_[queue].restart(ring_features_));
  }
  queue_states_[queue] = State::kEnding;
  rig_.begin_queue_reset(queue);
}

void QueueSchedule::stop() {
  if (device_state_ != State::kRunning) return;
  device_state_ = State::kEnding;
  rig_.begin_reset();
}

void QueueSchedule::start() {
  std::vector<devices::QueueLayout> layouts;
  for (size_t i = 0; i < kQueues; ++i) {
    layouts.push_back(queues_[i].restart(ring_features_));
    queue_states_[i] = State::kRunning;
  }
  device_state_ = State::kRunning;
  rig_.start(layouts, ring_features_ | kRequiredFeatures);
}

void QueueSchedule::change_interrupts() {
  if (!has_driver()) return;
  const auto vector = static_cast<uint16_t>(pick(1, DiskRig::kVectors));
  const uint64_t dice = pick(1, 3);
  if (dice == 1) return rig_.rewrite(vector);
  if (dice == 2) return rig_.set_masked(vector, chance(50));
  const QueueIndex queue = pick_queue();
  if (device_state_ != State::kRunning || queue_states_[queue] != State::kRunning) return;
  rig_.assign(queue, vector);
  // What has come by the old one is nobody's.
  collect(queue);
}

void QueueSchedule::collect(QueueIndex queue) { expect_right(queues_[queue].collect()); }

void QueueSchedule::settle(QueueIndex queue) {
  expect_right(queues_[queue].settle());
  queue_states_[queue] = State::kEnded;
}

void QueueSchedule::poll() {
  if (device_state_ == State::kEnding) {
    const bool ended =
        rig_.is_leaving() || !rig_.is_plugged() ? !rig_.is_plugged() : rig_.is_reset();
    if (!ended) return;
    for (QueueIndex queue = 0; queue < kQueues; ++queue) settle(queue);
    device_state_ = State::kEnded;
  }
  if (device_state_ == State::kEnded) return;
  for (QueueIndex queue = 0; queue < kQueues; ++queue)
    if (queue_states_[queue] == State::kEnding && !rig_.is_queue_resetting(queue)) settle(queue);
  for (uint16_t vector = 1; vector <= DiskRig::kVectors; ++vector) {
    if (!rig_.take_interrupt(vector)) continue;
    for (QueueIndex queue = 0; queue < kQueues; ++queue)
      if (rig_.vector_of(queue) == vector && queue_states_[queue] == State::kRunning)
        collect(queue);
  }
}

// The end ----------------------------------------------------------------------------------------

void QueueSchedule::calm_down() {
  while (!drains_.empty()) {
    rig_.drain_point().end(drains_.back());
    drains_.pop_back();
  }
  while (!kicks_.empty()) deliver_kick();
  if (!has_driver()) return;
  for (uint16_t vector = 1; vector <= DiskRig::kVectors; ++vector) rig_.set_masked(vector, false);
}

bool QueueSchedule::is_quiet() {
  if (device_state_ == State::kEnding || kicks_under_way_.load() != 0) return false;
  if (moves_under_way_.load() != 0) return false;
  if (device_state_ == State::kEnded) return true;
  rig_.disk().retry_failed();
  for (size_t i = 0; i < kQueues; ++i)
    if (queue_states_[i] == State::kEnding ||
        (queue_states_[i] == State::kRunning && queues_[i].busy() > 0))
      return false;
  EXPECT_FALSE(rig_.needs_reset());
  return true;
}

void QueueSchedule::begin_end(bool unplug_too) {
  if (unplug_too && has_driver()) return unplug();
  stop();
}

bool QueueSchedule::has_ended() {
  poll();
  return device_state_ == State::kEnded;
}

void QueueSchedule::check(std::span<const std::byte> disk) const {
  for (const QueueSlots& queue : queues_) expect_right(queue.check(disk));
}

void QueueSchedule::note_moves() {
  for (QueueIndex queue = 0; queue < kQueues; ++queue)
    moved_ += rig_.disk().queue_stats(queue).moves;
}

void QueueSchedule::Totals::expect_enough_for(uint64_t schedules) const {
  ::testing::Test::RecordProperty("answered", std::to_string(answered));
  ::testing::Test::RecordProperty("failed", std::to_string(failed));
  ::testing::Test::RecordProperty("moved", std::to_string(moved));
  ::testing::Test::RecordProperty("unplugged", std::to_string(unplugged));
  if (schedules < 100 || ::testing::Test::HasFailure()) return;
  EXPECT_GT(answered, schedules);
  EXPECT_GT(failed, schedules / 10);
  EXPECT_GT(moved, schedules / 2);
  EXPECT_GT(unplugged, schedules / 2);
}

QueueSchedule::Totals QueueSchedule::totals() const {
  Totals totals{.moved = moved_, .unplugged = unplugged_};
  for (const QueueSlots& queue : queues_) {
    totals.answered += queue.answered();
    totals.failed += queue.failed();
  }
  return totals;
}

}  // namespace skiff::sim
