// SPDX-License-Identifier: GPL-2.0-or-later
// What a request costs from the ring to the ring, counted. A program of its own, because it counts
// every allocation and every lock of the process.
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/open_image.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/blk/virtio_blk.h"
#include "loop/event_loop.h"
#include "loop/worker_pool.h"
#include "tests/path_counters.h"

namespace skiff::devices {
namespace {

struct Counts {
  uint64_t allocations = 0;
  uint64_t locks = 0;
  uint64_t enters = 0;
};

class BlkPathCountTest : public ::testing::TestWithParam<SubmitMode> {
 protected:
  static constexpr size_t kBytes = 4096;
  static constexpr uint16_t kQueueSize = 128;

  void SetUp() override {
    const bool is_vcpu = GetParam() == SubmitMode::kVcpu;
    auto loop =
        loop::EventLoop::create({.backend = loop::EventLoop::Backend::kIoUring,
                                 .task_work = is_vcpu ? loop::EventLoop::TaskWork::kInterrupt
                                                      : loop::EventLoop::TaskWork::kDeferred,
                                 .poll_max_ns = GetParam() == SubmitMode::kPoll ? 50'000 : 0});
    if (!loop) GTEST_SKIP() << "REFUSED BY THIS KERNEL: " << loop.error().message();
    loop_ = *std::move(loop);
    pool_ = *loop::WorkerPool::create({});
    block::ImageOptions options;
    options.path = "null:size=16M";
    image_ = *block::open_image(options, *pool_);
    device_ = *VirtioBlk::create({.queues = {{loop_.get(), GetParam()}},
                                  .memory = &memory_.memory(),
                                  .image = image_.get(),
                                  .queue_size = kQueueSize});
    device_->attach(transport_);
    for (Slot& slot : slots_) {
      const GuestAddress header = driver_.allocate(16);
      memory_.memory().store(header, uint32_t{VIRTIO_BLK_T_IN});
      slot.chain[0] = DriverBuffer::readable(header, 16);
      slot.chain[1] = DriverBuffer::writable(driver_.allocate(kBytes, 4096), kBytes);
      slot.chain[2] = DriverBuffer::writable(driver_.allocate(1), 1);
    }
    device_->start({.features = device_->features() | driver_.features() | kVirtioVersion1,
                    .queues = {driver_.layout()}});
    while (loop_->run_once(loop::EventLoop::Wait::kNo)) {
    }
  }
  void TearDown() override {
    if (!device_) return;
    bool stopped = false;
    device_->stop([&] { stopped = true; });
    while (!stopped) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  }

  // Keeps `depth` requests under way until `total` are done, as a guest that rings when it is asked
  // to.
  Counts run(uint64_t total, size_t depth) {
    const Counts before = now();
    uint64_t offered = 0;
    for (uint64_t done = 0; done < total;) {
      bool added = false;
      for (; offered < total && offered - done < depth; ++offered)
        added |= driver_.add(slots_[offered % std::size(slots_)].chain).has_value();
      driver_.enable_interrupts();
      if (added && driver_.publish()) ring();
      loop_->run_once(GetParam() == SubmitMode::kVcpu ? loop::EventLoop::Wait::kNo
                                                      : loop::EventLoop::Wait::kUntilEvent);
      while (driver_.collect()) ++done;
    }
    const Counts after = now();
    return {after.allocations - before.allocations, after.locks - before.locks,
            after.enters - before.enters};
  }
  void ring() {
    if (transport_.doorbell_path() == DoorbellPath::kExit)
      device_->kick(0);
    else
      device_->doorbell(0).notify();
  }
  Counts now() const {
    return {counted_allocations.load(), counted_locks.load(), loop_->counters().enters};
  }

  struct Slot {
    DriverBuffer chain[3];
  };
  FakeGuestMemory memory_{1 << 20};
  FakeTransport transport_;
  GuestDriver driver_{memory_, {.queue_size = kQueueSize, .features = kVirtioRingEventIdx}};
  Slot slots_[32];
  std::unique_ptr<loop::EventLoop> loop_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<block::BlockBackend> image_;
  std::unique_ptr<VirtioBlk> device_;
};

TEST_P(BlkPathCountTest, RequestsAllocateNothingAndLockNothing) {
  for (const size_t depth : {1U, 8U, 32U}) {
    run(2'000, depth);  // What grows has grown.
    Counts counts = run(4'000, depth);
    // A worker of the pool that comes or goes meanwhile is counted as well; it does not do so
    // thrice.
    for (int again = 0; again < 2 && counts.allocations + counts.locks != 0; ++again)
      counts = run(4'000, depth);
    EXPECT_EQ(counts.allocations, 0u) << depth;
    EXPECT_EQ(counts.locks, 0u) << depth;
  }
}

TEST_P(BlkPathCountTest, BatchOfRequestsRaisesAtMostOneInterrupt) {
  const uint64_t before = device_->queue_stats(0).interrupts;
  constexpr uint64_t kRequests = 4'096;
  run(kRequests, 32);
  const BlkQueueStats stats = device_->queue_stats(0);
  EXPECT_EQ(stats.requests, kRequests);
  EXPECT_LE(stats.interrupts - before, stats.batches);
  EXPECT_LE(stats.batches, kRequests / 16);
}

// The device ends a request at once. What is left: a vCPU's turn; elsewhere the wait that the
// doorbell ends, and the re-arming of its read, since the loop does not sleep before it publishes.
TEST_P(BlkPathCountTest, RequestAloneNeedsFewSystemCallsOfTheLoop) {
  run(1'000, 1);
  constexpr uint64_t kRequests = 4'000;
  const Counts counts = run(kRequests, 1);
  const double allowed = GetParam() == SubmitMode::kVcpu ? 1.05 : 2.05;
  EXPECT_LE(static_cast<double>(counts.enters) / kRequests, allowed);
}

INSTANTIATE_TEST_SUITE_P(Modes, BlkPathCountTest,
                         ::testing::Values(SubmitMode::kIoThread, SubmitMode::kVcpu,
                                           SubmitMode::kPoll),
                         [](const auto& its) { return submit_mode_name(its.param); });

}  // namespace
}  // namespace skiff::devices
