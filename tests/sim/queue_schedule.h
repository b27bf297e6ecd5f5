// SPDX-License-Identifier: GPL-2.0-or-later
// QueueSchedule: what guest and operator do to a disk with several queues, as luck has it:
// requests, kicks that come late, moves between homes and modes, drains, resets of queues and of
// the device, unplugging and plugging, vectors that are masked, rewritten and given to other
// queues. The guest looks at a ring only when an interrupt has told it to. Nothing may be lost,
// answered twice, left behind, or found changed on the disk.
//
// Whoever uses it turns the loops between the steps. Thread: the test's, which is the main loop's.
// Ownership: borrows what World names. It ends with the disk unplugged.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/drain.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "tests/sim/disk_rig.h"
#include "tests/sim/queue_slots.h"

namespace skiff::sim {

class QueueSchedule {
 public:
  static constexpr size_t kQueues = DiskRig::kQueues;
  static constexpr uint64_t kSectors = kQueues * QueueSlots::kSlots;

  struct World {
    loop::EventLoop* main_loop = nullptr;
    std::vector<loop::EventLoop*> homes;
    block::BlockBackend* image = nullptr;
    // Kicks may also come from the home's own thread, as those of a vCPU that is the home.
    bool kicks_at_home = false;
    std::function<void()> drained = {};
  };
  // What has been done so far, to see that schedules do what they are for.
  struct Totals {
    void expect_enough_for(uint64_t schedules) const;
    uint64_t answered = 0;
    uint64_t failed = 0;
    uint64_t moved = 0;
    uint64_t unplugged = 0;
  };

  explicit QueueSchedule(const World& world);

  // A new schedule; the one before has come to its end.
  void begin(uint64_t seed);
  void act();
  // The guest's interrupt handlers, and what it sees of resets that it waits for.
  void poll();
  // Nobody disturbs any more: everything has to come to its end, with the kicks there were.
  void calm_down();
  // Calm and answered, as far as that goes without unplugging; retries what is parked.
  bool is_quiet();
  // After that: the device is reset, or if it is to go, unplugged.
  void begin_end(bool unplug);
  bool has_ended();
  // What is wrong with the image after the end.
  void check(std::span<const std::byte> disk) const;

  uint64_t pick(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  bool chance(uint64_t percent) { return pick(1, 100) <= percent; }
  Totals totals() const;

 private:
  enum class State : uint8_t { kRunning, kEnding, kEnded };
  struct Kick {
    devices::QueueIndex queue = 0;
    devices::DoorbellPath path = devices::DoorbellPath::kKernel;
  };

  bool has_driver() const { return rig_.is_plugged() && !rig_.is_leaving(); }
  devices::QueueIndex pick_queue() {
    return static_cast<devices::QueueIndex>(pick(0, kQueues - 1));
  }
  void offer();
  void deliver_kick();
  void deliver(const Kick& kick);
  void move(devices::QueueIndex queue);
  void drain();
  void reset_queue();
  void bring_up();
  void start();
  void stop();
  void unplug();
  void change_interrupts();
  void collect(devices::QueueIndex queue);
  void settle(devices::QueueIndex queue);
  void note_moves();

  const World world_;
  std::mt19937_64 random_;
  devices::FakeGuestMemory memory_{kQueues * QueueSlots::kArenaBytes};
  DiskRig rig_;
  std::vector<QueueSlots> queues_;

  uint64_t ring_features_ = 0;
  State device_state_ = State::kEnded;
  std::array<State, kQueues> queue_states_{};
  std::deque<Kick> kicks_;
  std::atomic<uint32_t> kicks_under_way_{0};
  std::vector<block::DrainPoint::DrainId> drains_;
  std::atomic<uint32_t> moves_under_way_{0};
  uint64_t moved_ = 0;
  uint64_t unplugged_ = 0;
};

}  // namespace skiff::sim
