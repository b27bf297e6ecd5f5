// SPDX-License-Identifier: GPL-2.0-or-later
// Queues at home on the loops of vCPUs, as far as that goes without vCPUs: threads with loops of
// that kind, and the registers that a guest's driver would write there.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "block/testing/fake_channel.h"
#include "devices/core/bus.h"
#include "devices/testing/fake_doorbell.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "devices/virtio/transport/virtio_mmio.h"
#include "devices/virtio/transport/virtio_registers.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/thread.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kArenaBytes = 64 * 1024;

loop::Result<std::unique_ptr<loop::EventLoop>> make_vcpu_loop(
    std::function<void(int64_t)> kick_at) {
  return loop::EventLoop::create({.backend = loop::EventLoop::Backend::kIoUring,
                                  .task_work = loop::EventLoop::TaskWork::kInterrupt,
                                  .kick = [] {},
                                  .kick_at = std::move(kick_at)});
}

// A disk behind the memory-mapped transport, with its only queue at home on a vCPU's loop.
class Disk {
 public:
  Disk(FakeGuestMemory& memory, size_t number, loop::EventLoop& home)
      : base_{number * kArenaBytes}, memory_(memory), main_(home) {
    device_ = *VirtioBlk::create({.queues = {{&home, SubmitMode::kVcpu}},
                                  .memory = &memory.memory(),
                                  .image = &image_,
                                  .queue_size = 16});
    transport_ = VirtioMmio::create({.device = *device_,
                                     .doorbells = doorbells_,
                                     .irq = irq_,
                                     .main_loop = main_,
                                     .base = 0xd000'0000});
  }
  void start() {
    const GuestDriver driver(memory_.memory(),
                             {.queue_size = 16, .base = base_, .arena_bytes = kArenaBytes});
    constexpr uint32_t kFeaturesOk = kVirtioAcknowledge | kVirtioDriver | kVirtioFeaturesOk;
    write(0x070, kVirtioAcknowledge | kVirtioDriver);
    write(0x024, 1);
    write(0x020, 1);  // VERSION_1.
    write(0x070, kFeaturesOk);
    write(0x030, 0);
    write(0x038, 16);
    write(0x080, driver.layout().descriptors.value);
    write(0x090, driver.layout().available.value);
    write(0x0a0, driver.layout().used.value);
    write(0x044, 1);
    write(0x070, kFeaturesOk | kVirtioDriverOk);
  }
  // Returns when the device has stopped.
  void reset() { write(0x070, 0); }
  uint32_t status() {
    std::array<uint8_t, 4> data{};
    transport_->bus_read(0x070, data);
    return static_cast<uint32_t>(load_le(data));
  }
  bool is_at_work() const { return image_.has_channel(); }

 private:
  void write(uint64_t offset, uint64_t value) {
    std::array<uint8_t, 4> data{};
    store_le(data, value);
    transport_->bus_write(offset, data);
  }

  const GuestAddress base_;
  FakeGuestMemory& memory_;
  loop::EventLoop& main_;
  block::FakeBackend image_{{.sectors = 8}};
  FakeIrqLine irq_;
  FakeDoorbellHub doorbells_;
  std::unique_ptr<VirtioBlk> device_;
  std::unique_ptr<VirtioMmio> transport_;
};

// Each vCPU resets the disk whose queue is at home with the other: each is waited for while it
// waits.
TEST(BlkVcpuTest, TwoVcpusMayResetDisksThatAreAtHomeWithTheOther) {
  std::array<std::unique_ptr<loop::EventLoop>, 2> loops;
  for (auto& loop : loops) {
    auto made = make_vcpu_loop([](int64_t) {});
    if (!made) GTEST_SKIP() << "NO IO_URING HERE: " << made.error().message();
    loop = *std::move(made);
  }
  FakeGuestMemory memory{2 * kArenaBytes};
  Disk disk_of_0(memory, 0, *loops[0]);
  Disk disk_of_1(memory, 1, *loops[1]);
  std::atomic<int> are_ready{0};
  const auto vcpu = [&](std::unique_ptr<loop::EventLoop>& own, Disk& at_home, Disk& other) {
    const auto turn_until = [&own](const auto& condition) {
      while (!condition()) own->run_once(loop::EventLoop::Wait::kNo);
    };
    own->run_once(loop::EventLoop::Wait::kNo);
    at_home.start();
    turn_until([&] { return at_home.is_at_work(); });
    ++are_ready;
    while (are_ready < 2) {
    }
    other.reset();
    ++are_ready;
    turn_until([&] { return are_ready == 4; });
    own.reset();
  };
  {
    auto one =
        loop::Thread::create({.name = "vcpu0"}, [&] { vcpu(loops[0], disk_of_0, disk_of_1); });
    auto two =
        loop::Thread::create({.name = "vcpu1"}, [&] { vcpu(loops[1], disk_of_1, disk_of_0); });
    ASSERT_TRUE(one && two);
  }
  EXPECT_EQ(disk_of_0.status(), 0u);
  EXPECT_EQ(disk_of_1.status(), 0u);
}

TEST(BlkVcpuTest, IdleQueueNeverAsksForTheGuestToBeLeft) {
  std::vector<int64_t> kicks_at;
  auto made = make_vcpu_loop([&](int64_t at_ns) { kicks_at.push_back(at_ns); });
  if (!made) GTEST_SKIP() << "NO IO_URING HERE: " << made.error().message();
  loop::EventLoop& loop = **made;
  const auto turn_until_idle = [&loop] {
    do loop.run_once(loop::EventLoop::Wait::kNo);
    while (!loop.is_idle());
  };
  FakeGuestMemory memory{kArenaBytes};
  turn_until_idle();
  {
    Disk disk(memory, 0, loop);
    disk.start();
    turn_until_idle();
    ASSERT_TRUE(disk.is_at_work());
    EXPECT_EQ(kicks_at.size(), 0u);
    disk.reset();
    turn_until_idle();
  }
}

}  // namespace
}  // namespace skiff::devices
