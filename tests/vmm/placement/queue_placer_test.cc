// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/queue_placer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/core/msi.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/virtio_device.h"
#include "loop/testing/manual_loop.h"
#include "tests/vmm/placement/fake_host.h"
#include "vmm/config/disk_config.h"

namespace skiff::vmm {
namespace {

using devices::QueueHome;
using devices::SubmitMode;
using ::testing::HasSubstr;

class FakeDisk final : public PlacedDisk {
 public:
  explicit FakeDisk(uint16_t queues) : pulses(queues), homes(queues) {}
  const std::string& name() const override { return name_; }
  uint16_t queue_count() const override { return static_cast<uint16_t>(pulses.size()); }
  QueuePulse pulse(devices::QueueIndex queue) const override { return pulses[queue]; }
  void move_queue(devices::QueueIndex queue, const QueueHome& home,
                  std::function<void()> moved) override {
    ++moves;
    if (home != refused) homes[queue] = home;
    if (moves_at_once) return moved();
    pending.push_back(std::move(moved));
  }
  QueueHome home(devices::QueueIndex queue) const override { return homes[queue]; }
  void tell_next_request() override { ++asked_for_next; }

  // As many requests, one at a time.
  void serve(uint16_t queue, uint64_t requests) {
    pulses[queue].requests += requests;
    pulses[queue].batches += requests;
    pulses[queue].kicks += requests;
  }
  std::vector<QueuePulse> pulses;
  std::vector<QueueHome> homes;
  std::vector<std::function<void()>> pending;
  std::optional<QueueHome> refused;
  bool moves_at_once = true;
  int moves = 0;
  int asked_for_next = 0;

 private:
  const std::string name_ = "disk0";
};

class QueuePlacerTest : public ::testing::Test {
 protected:
  QueuePlacerTest() {
    for (uint32_t i = 0; i < 2; ++i)
      placer_.add_iothread({.name = "io" + std::to_string(i), .loop = &io_[i].loop()});
  }
  void set_vcpus(bool with_loops = true) {
    std::vector<QueuePlacer::VcpuContext> vcpus;
    for (uint32_t i = 0; i < 4; ++i)
      vcpus.push_back(
          {with_loops ? &vcpu_[i].loop() : nullptr, [this, i] { return host_cpu_[i]; }, 100 + i});
    placer_.set_vcpus(std::move(vcpus));
    run();
  }
  void run() {
    for (int i = 0; i < 4; ++i) {
      main_.run_until_idle();
      for (auto& loop : io_) loop.run_until_idle();
    }
  }
  void period() {
    main_.advance_ns(QueuePlacer::kPeriodNs);
    run();
  }
  static DiskPlacement placement(DiskSubmit submit, std::vector<size_t> threads) {
    return {.submit = submit, .threads = std::move(threads), .allowed_threads = {0, 1}};
  }
  void target(FakeDisk& disk, devices::QueueIndex queue, uint32_t vcpu) {
    placer_.interrupt_target_changed(disk, queue,
                                     devices::MsiMessage{0xfee00000u | uint64_t{vcpu} << 12, 0x31});
    run();
  }

  loop::ManualLoop main_;
  std::array<loop::ManualLoop, 2> io_;
  std::array<loop::ManualLoop, 4> vcpu_;
  std::array<uint32_t, 4> host_cpu_ = {0, 1, 2, 3};
  HostTopology host_ = two_sockets_with_smt();
  double idle_ = 1.0;
  QueuePlacer placer_{{.main_loop = main_.loop(),
                       .topology = host_,
                       .apic_ids = {0, 1, 2, 3},
                       .usable_cores = 2,
                       .idle_cores = [this] { return std::optional(idle_); }}};
};

TEST_F(QueuePlacerTest, QueuesOfVcpusGoHomeWhenThereAreVcpus) {
  FakeDisk disk(4);
  const auto first = placer_.first_homes(placement(DiskSubmit::kVcpu, {}), 4);
  EXPECT_EQ(first[2].mode, SubmitMode::kIoThread);
  placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
  EXPECT_EQ(disk.moves, 0);
  set_vcpus();
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(disk.homes[i].loop, &vcpu_[i].loop());
    EXPECT_EQ(disk.homes[i].mode, SubmitMode::kVcpu);
  }
  EXPECT_THAT(placer_.where(disk, 3).home, "vcpu3");
}

TEST_F(QueuePlacerTest, QueueFollowsItsInterruptToAnotherVcpu) {
  FakeDisk disk(2);
  placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
  set_vcpus();
  target(disk, 0, 3);
  EXPECT_EQ(disk.homes[0].loop, &vcpu_[3].loop());
  EXPECT_THAT(placer_.where(disk, 0).why, HasSubstr("vcpu3: its interrupts go there"));
  // Masked while it is changed: it stays.
  placer_.interrupt_target_changed(disk, 0, std::nullopt);
  run();
  EXPECT_EQ(disk.homes[0].loop, &vcpu_[3].loop());
  EXPECT_EQ(placer_.where(disk, 0).moves_last_minute, 2u);
}

TEST_F(QueuePlacerTest, SteerOffStaysWhereTheNumberSays) {
  FakeDisk disk(2);
  DiskPlacement fixed = placement(DiskSubmit::kVcpu, {});
  fixed.steer = false;
  placer_.add(disk, fixed);
  set_vcpus();
  target(disk, 1, 3);
  EXPECT_EQ(disk.homes[1].loop, &vcpu_[1].loop());
}

TEST_F(QueuePlacerTest, VcpuThatKeepsRingingForAnotherGetsTheQueue) {
  FakeDisk disk(1);
  placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
  set_vcpus();
  placer_.wake();
  run();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(disk.homes[0].loop, &vcpu_[0].loop());
    disk.serve(0, 100);
    disk.pulses[0].foreign_kicks += 80;
    disk.pulses[0].last_foreign = 102;
    period();
  }
  EXPECT_EQ(disk.homes[0].loop, &vcpu_[2].loop());
}

TEST_F(QueuePlacerTest, WithoutLoopsOnVcpusTheIothreadKeepsTheQueue) {
  FakeDisk disk(1);
  placer_.add(disk, placement(DiskSubmit::kAuto, {1}));
  set_vcpus(/*with_loops=*/false);
  EXPECT_EQ(disk.moves, 0);
  EXPECT_EQ(placer_.where(disk, 0).home, "io1");
}

TEST_F(QueuePlacerTest, AnotherWishMovesWhatIsThere) {
  FakeDisk disk(2);
  placer_.add(disk, placement(DiskSubmit::kIothread, {0, 1}));
  set_vcpus();
  placer_.change(disk, placement(DiskSubmit::kVcpu, {}));
  EXPECT_EQ(disk.homes[1].loop, &vcpu_[1].loop());
  placer_.change(disk, placement(DiskSubmit::kPoll, {1, 0}));
  run();
  EXPECT_EQ(disk.homes[1], (QueueHome{&io_[0].loop(), SubmitMode::kPoll}));
  placer_.change(disk, placement(DiskSubmit::kAuto, {1, 0}));
  run();
  EXPECT_EQ(placer_.where(disk, 1).mode, SubmitMode::kPoll);
}

TEST_F(QueuePlacerTest, DecisionMadeDuringAMoveIsCarriedOutAfterIt) {
  FakeDisk disk(1);
  disk.moves_at_once = false;
  placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
  set_vcpus();
  ASSERT_EQ(disk.pending.size(), 1u);
  target(disk, 0, 2);
  target(disk, 0, 3);
  EXPECT_EQ(disk.moves, 1);
  disk.pending[0]();
  run();
  EXPECT_EQ(disk.moves, 2);
  EXPECT_EQ(disk.homes[0].loop, &vcpu_[3].loop());
}

TEST_F(QueuePlacerTest, HomeThatTheImageRefusesIsNotTriedForEver) {
  FakeDisk disk(1);
  placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
  disk.homes[0] = {&main_.loop(), SubmitMode::kIoThread};
  disk.refused = QueueHome{&vcpu_[0].loop(), SubmitMode::kVcpu};
  set_vcpus();
  EXPECT_EQ(disk.moves, 1);
  EXPECT_EQ(placer_.where(disk, 0).mode, SubmitMode::kIoThread);
  target(disk, 0, 2);
  EXPECT_EQ(disk.homes[0].loop, &vcpu_[2].loop());
}

TEST_F(QueuePlacerTest, HoldWaitsForMovesAndAllowsNoMore) {
  FakeDisk disk(1);
  disk.moves_at_once = false;
  placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
  set_vcpus();
  bool settled = false;
  placer_.hold([&settled] { settled = true; });
  run();
  EXPECT_FALSE(settled);
  target(disk, 0, 2);
  disk.pending[0]();
  run();
  EXPECT_TRUE(settled);
  EXPECT_EQ(disk.moves, 1);
  placer_.release();
  EXPECT_EQ(disk.homes[0].loop, &vcpu_[2].loop());
}

TEST_F(QueuePlacerTest, SleepsWithoutRequestsUntilOneComes) {
  FakeDisk disk(1);
  placer_.add(disk, placement(DiskSubmit::kAuto, {0}));
  set_vcpus();
  EXPECT_FALSE(placer_.is_awake());
  EXPECT_EQ(disk.asked_for_next, 1);
  placer_.wake();
  run();
  for (int i = 0; i < 20 && placer_.is_awake(); ++i) {
    if (i < 3) disk.serve(0, 10);
    period();
  }
  EXPECT_FALSE(placer_.is_awake());
  EXPECT_EQ(disk.asked_for_next, 2);
}

TEST_F(QueuePlacerTest, AutoChangesTheModeOfARunningQueueAndSaysWhy) {
  FakeDisk disk(1);
  placer_.add(disk, placement(DiskSubmit::kAuto, {0}));
  set_vcpus();
  placer_.set_exit_cost(1);
  placer_.wake();
  // The clock of these loops stands still: waking must seem to cost something.
  for (int i = 0; i < 200 && disk.homes[0].mode != SubmitMode::kVcpu; ++i) {
    disk.serve(0, 2000);
    main_.advance_ns(QueuePlacer::kPeriodNs);
    for (auto& loop : io_) {
      loop.clock().advance_ns(QueuePlacer::kPeriodNs + 20'000);
      loop.run_until_idle();
    }
    run();
  }
  EXPECT_EQ(disk.homes[0].mode, SubmitMode::kVcpu);
  EXPECT_EQ(disk.homes[0].loop, &vcpu_[0].loop());
  EXPECT_THAT(placer_.where(disk, 0).why, HasSubstr("by vcpu"));
}

TEST_F(QueuePlacerTest, CompletionsAreCountedByWhereTheyHappen) {
  FakeDisk disk(1);
  placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
  set_vcpus();
  placer_.wake();
  run();
  disk.serve(0, 100);
  disk.pulses[0].foreign_kicks += 25;
  period();
  const QueueWhere where = placer_.where(disk, 0);
  EXPECT_EQ(where.on_submitter, 75u);
  EXPECT_EQ(where.elsewhere, 25u);
  target(disk, 0, 0);
  disk.serve(0, 100);
  disk.pulses[0].foreign_kicks += 100;
  period();
  EXPECT_EQ(placer_.where(disk, 0).on_target, 100u);
}

TEST_F(QueuePlacerTest, DiskThatIsGoneIsNoLongerPlaced) {
  {
    FakeDisk disk(1);
    disk.moves_at_once = false;
    placer_.add(disk, placement(DiskSubmit::kVcpu, {}));
    set_vcpus();
    placer_.interrupt_target_changed(disk, 0, devices::MsiMessage{0xfee02000, 0x31});
    placer_.remove(disk);
    disk.pending[0]();
  }
  placer_.wake();
  for (int i = 0; i < 10; ++i) period();
  bool settled = false;
  placer_.hold([&settled] { settled = true; });
  run();
  EXPECT_TRUE(settled);
}

}  // namespace
}  // namespace skiff::vmm
