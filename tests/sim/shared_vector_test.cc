// SPDX-License-Identifier: GPL-2.0-or-later
// Queues that share an MSI-X vector, through the PCI transport: the guest looks at their rings only
// when the vector has interrupted, and must find everything.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "block/testing/fake_channel.h"
#include "devices/core/guest_memory.h"
#include "devices/pci/pci_bus.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/io_thread.h"
#include "loop/testing/manual_loop.h"
#include "tests/sim/disk_rig.h"
#include "tests/sim/memory_disk.h"
#include "tests/sim/queue_slots.h"

namespace skiff::sim {
namespace {

using devices::GuestDriver;
using devices::QueueIndex;
using devices::SubmitMode;

constexpr size_t kQueues = DiskRig::kQueues;
constexpr uint16_t kShared = 1;
constexpr auto kPatience = std::chrono::seconds(60);

// A disk all of whose queues have vector kShared.
class Guest {
 public:
  Guest(loop::EventLoop& main_loop, block::BlockBackend& image,
        const std::vector<loop::EventLoop*>& homes)
      : rig_({.main_loop = &main_loop,
              .memory = &memory_.memory(),
              .image = &image,
              .home = {homes[0], SubmitMode::kIoThread}}) {
    rig_.plug();
    std::vector<devices::QueueLayout> layouts;
    for (QueueIndex i = 0; i < kQueues; ++i) {
      queues_.emplace_back(memory_.memory(), devices::GuestAddress{i * QueueSlots::kArenaBytes},
                           i * QueueSlots::kSlots);
      layouts.push_back(queues_[i].restart(devices::kVirtioRingEventIdx));
      rig_.disk().move_queue(i, {homes[i % homes.size()], SubmitMode::kIoThread}, [] {});
      rig_.assign(i, kShared);
    }
    rig_.start(layouts, devices::kVirtioVersion1 | devices::kVirtioRingEventIdx);
  }

  DiskRig& rig() { return rig_; }
  // As many requests as there is room for.
  void offer(QueueIndex queue) {
    while (queues_[queue].offer(false, GuestDriver::Placement::kDirect))
      if (queues_[queue].driver().kick_wanted())
        rig_.deliver_kick(queue, rig_.doorbell_path(queue));
  }
  // The interrupt handler, if there was an interrupt.
  bool handle_interrupt() {
    if (!rig_.take_interrupt(kShared)) return false;
    for (QueueSlots& queue : queues_) EXPECT_EQ(queue.collect(), std::nullopt);
    return true;
  }
  size_t busy(QueueIndex queue) const { return queues_[queue].busy(); }

 private:
  devices::FakeGuestMemory memory_{kQueues * QueueSlots::kArenaBytes};
  DiskRig rig_;
  std::vector<QueueSlots> queues_;
};

class SharedVectorTest : public ::testing::Test {
 protected:
  ~SharedVectorTest() override {
    if (!guest_) return;
    guest_->rig().take_out(devices::PciBus::Removal::kEjected);
    guest_->rig().begin_leaving();
    turn();
  }
  void make(const std::vector<loop::EventLoop*>& homes) {
    guest_.emplace(main_, image_, homes);
    turn();
  }
  void turn() {
    for (int round = 0; round < 6; ++round) {
      for (auto& loop : loops_) loop.run_until_idle();
      main_.run_until_idle();
    }
  }
  void complete_on(size_t loop) {
    block::FakeChannel* const channel = image_.channel_on(loops_[loop].loop());
    while (channel->in_flight() > 0) channel->complete(0);
    turn();
  }

  std::vector<loop::ManualLoop> loops_{kQueues};
  loop::ManualLoop main_;
  block::FakeBackend image_{{.sectors = kQueues * QueueSlots::kSlots}};
  std::optional<Guest> guest_;
};

TEST_F(SharedVectorTest, QueuesOfDifferentLoopsEachInterrupt) {
  make({&loops_[0].loop(), &loops_[1].loop(), &loops_[2].loop()});
  for (QueueIndex queue = 0; queue < kQueues; ++queue) guest_->offer(queue);
  turn();
  for (QueueIndex queue = 0; queue < kQueues; ++queue) {
    complete_on(queue);
    EXPECT_TRUE(guest_->handle_interrupt()) << queue;
    EXPECT_EQ(guest_->busy(queue), 0u);
  }
}

TEST_F(SharedVectorTest, WhatCompletesWhileItIsMaskedIsFoundAfterwards) {
  make({&loops_[0].loop(), &loops_[1].loop(), &loops_[2].loop()});
  for (QueueIndex queue = 0; queue < kQueues; ++queue) guest_->offer(queue);
  turn();
  guest_->rig().set_masked(kShared, true);
  for (QueueIndex queue = 0; queue < kQueues; ++queue) complete_on(queue);
  EXPECT_FALSE(guest_->handle_interrupt());
  guest_->rig().rewrite(kShared);
  EXPECT_FALSE(guest_->handle_interrupt());
  guest_->rig().set_masked(kShared, false);
  EXPECT_TRUE(guest_->handle_interrupt());
  for (QueueIndex queue = 0; queue < kQueues; ++queue) EXPECT_EQ(guest_->busy(queue), 0u);
}

// Interrupts, handlers and the driver's wish for more meet at every point.
TEST(SharedVectorThreadTest, NoQueueOfAnyThreadIsForgotten) {
  constexpr int kRounds = 3000;
  std::vector<std::unique_ptr<loop::IoThread>> threads;
  std::vector<loop::EventLoop*> homes;
  for (size_t i = 0; i < 2; ++i) {  // Two queues are on one loop, and publish together.
    threads.push_back(*loop::IoThread::create({.name = "io" + std::to_string(i)}));
    homes.push_back(&threads.back()->loop());
  }
  loop::ManualLoop main;
  MemoryDisk disk(kQueues * QueueSlots::kSlots * QueueSlots::kSectorBytes, "");
  Guest guest(main, disk.image(), homes);
  const auto until = std::chrono::steady_clock::now() + kPatience;
  const auto wait_for = [&](const auto& condition) {
    while (!condition() && std::chrono::steady_clock::now() < until) {
      main.run_until_idle();
      guest.handle_interrupt();
      std::this_thread::yield();
    }
    return condition();
  };
  bool lost = false;
  for (int round = 0; round < kRounds && !lost; ++round) {
    for (QueueIndex queue = 0; queue < kQueues; ++queue)
      if (guest.busy(queue) <= 2) guest.offer(queue);
    if (round % 7 == 0) guest.rig().rewrite(kShared);
    lost = !wait_for([&] {
      size_t least = guest.busy(0);
      for (QueueIndex queue = 1; queue < kQueues; ++queue)
        least = std::min(least, guest.busy(queue));
      return least <= 2;
    });
  }
  EXPECT_TRUE(!lost && wait_for([&] { return guest.busy(0) + guest.busy(1) + guest.busy(2) == 0; }))
      << "an interrupt was lost";
  guest.rig().take_out(devices::PciBus::Removal::kEjected);
  guest.rig().begin_leaving();
  EXPECT_TRUE(wait_for([&] { return !guest.rig().is_plugged(); }));
}

}  // namespace
}  // namespace skiff::sim
