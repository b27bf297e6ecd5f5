// SPDX-License-Identifier: GPL-2.0-or-later
// Tests of QueueSet and QueueRunner with a device that answers at once or holds its chains.
#include "devices/virtio/queue_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <semaphore>
#include <utility>
#include <vector>

#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/queue_runner.h"
#include "devices/virtio/virtio_device.h"
#include "loop/io_thread.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;
using Served = QueueHandler::Served;

class TestOwner final : public QueueOwner {
 public:
  void queues_started(uint64_t features) override { features_seen = features; }
  void queues_stopping() override {
    ++stopping_calls;
    if (finish_at_stop) finish_held();
  }
  Served serve(QueueRunner& runner) override {
    ++serve_calls;
    runner_ = &runner;
    if (blocked) return Served::kBlocked;
    for (uint32_t budget = budget_per_turn; budget > 0; --budget) {
      if (runner.queue().pop(chain_) != VirtQueue::Pop::kChain) return Served::kAll;
      ++served;
      if (hold)
        held.push_back(chain_.head());
      else
        runner.complete(chain_.head(), 1);
    }
    return after_budget;
  }
  void finish_held() {
    for (const uint16_t head : held) runner_->complete(head, 2);
    held.clear();
  }

  uint32_t budget_per_turn = 100;
  Served after_budget = Served::kMore;
  bool blocked = false;
  bool hold = false;
  bool finish_at_stop = false;
  uint64_t features_seen = 0;
  uint32_t serve_calls = 0;
  uint32_t stopping_calls = 0;
  std::atomic<uint32_t> served{0};
  std::vector<uint16_t> held;

 private:
  QueueRunner* runner_ = nullptr;
  DescriptorChain chain_;
};

class QueueSetTest : public ::testing::Test {
 protected:
  explicit QueueSetTest(uint64_t features = kVirtioRingEventIdx)
      : driver_(memory_, {.queue_size = 16, .features = features}), data_(driver_.allocate(512)) {
    auto set = QueueSet::create(
        {.home = &loop_.loop(), .memory = &memory_.memory(), .name = "test", .queue_sizes = {16}});
    EXPECT_TRUE(set);
    set_ = *std::move(set);
    set_->attach(transport_, owner_);
  }

  void start() {
    set_->start({.features = driver_.features(), .queues = {driver_.layout()}});
    loop_.run_until_idle();
  }
  void stop() {
    set_->stop([this] { ++stopped_; });
    loop_.run_until_idle();
  }
  // As the guest does it: kicks only when the device asked for it.
  bool offer() {
    driver_.offer({DriverBuffer::readable(data_, 16)});
    if (driver_.kick_wanted()) set_->runner(0).doorbell().notify();
    return driver_.kick_wanted();
  }

  FakeGuestMemory memory_{64 * 1024};
  loop::ManualLoop loop_;
  FakeTransport transport_;
  TestOwner owner_;
  GuestDriver driver_;
  GuestAddress data_;
  std::unique_ptr<QueueSet> set_;
  int stopped_ = 0;
};

TEST_F(QueueSetTest, KickIsServedAndInterrupts) {
  start();
  EXPECT_EQ(owner_.features_seen, kVirtioRingEventIdx);
  EXPECT_TRUE(offer());
  loop_.run_until_idle();
  EXPECT_THAT(driver_.collect_all(), ElementsAre(UsedElement{0, 1}));
  EXPECT_EQ(transport_.interrupts(), 1u);
  stop();
}

TEST_F(QueueSetTest, WorkOfferedBeforeTheStartIsServed) {
  offer();
  start();
  EXPECT_EQ(driver_.collect_all().size(), 1u);
  stop();
}

TEST_F(QueueSetTest, ManyRequestsOfATurnRaiseOneInterrupt) {
  start();
  for (int i = 0; i < 10; ++i) offer();
  loop_.run_until_idle();
  EXPECT_EQ(driver_.collect_all().size(), 10u);
  EXPECT_EQ(transport_.interrupts(), 1u);
  stop();
}

TEST_F(QueueSetTest, CompletionsOutsideOfServeRaiseOneInterrupt) {
  owner_.hold = true;
  start();
  for (int i = 0; i < 3; ++i) offer();
  loop_.run_until_idle();
  EXPECT_EQ(transport_.interrupts(), 0u);
  owner_.finish_held();
  EXPECT_EQ(transport_.interrupts(), 0u);  // In the next turn.
  loop_.run_until_idle();
  EXPECT_EQ(driver_.collect_all().size(), 3u);
  EXPECT_EQ(transport_.interrupts(), 1u);
  stop();
}

TEST_F(QueueSetTest, SpentBudgetContinuesInTheNextTurnWithoutAKick) {
  owner_.budget_per_turn = 2;
  start();
  for (int i = 0; i < 9; ++i) offer();
  owner_.serve_calls = 0;
  loop_.run_until_idle();
  EXPECT_EQ(driver_.collect_all().size(), 9u);
  EXPECT_EQ(owner_.serve_calls, 5u);
  stop();
}

TEST_F(QueueSetTest, BlockedQueueWaitsForSchedule) {
  owner_.blocked = true;
  start();
  offer();
  loop_.run_until_idle();
  EXPECT_TRUE(driver_.collect_all().empty());
  owner_.blocked = false;
  set_->runner(0).schedule();
  loop_.run_until_idle();
  EXPECT_EQ(driver_.collect_all().size(), 1u);
  stop();
}

TEST_F(QueueSetTest, BrokenRingAsksForOneResetAndIsLeftAlone) {
  start();
  driver_.offer_head(99);
  set_->runner(0).doorbell().notify();
  loop_.run_until_idle();
  EXPECT_EQ(transport_.reset_requests(), 1u);
  const uint32_t calls = owner_.serve_calls;
  for (int i = 0; i < 5; ++i) {
    set_->runner(0).doorbell().notify();
    loop_.run_until_idle();
  }
  EXPECT_EQ(transport_.reset_requests(), 1u);
  EXPECT_EQ(owner_.serve_calls, calls);
  stop();
  EXPECT_EQ(stopped_, 1);
}

TEST_F(QueueSetTest, DeviceThatCallsItsGuestBrokenAsksForAReset) {
  owner_.budget_per_turn = 1;
  owner_.after_budget = Served::kBroken;
  start();
  offer();
  loop_.run_until_idle();
  EXPECT_EQ(transport_.reset_requests(), 1u);
  stop();
}

TEST_F(QueueSetTest, UnusableLayoutAsksForAReset) {
  QueueLayout layout = driver_.layout();
  layout.used.value += 1;
  set_->start({.features = 0, .queues = {layout}});
  loop_.run_until_idle();
  EXPECT_TRUE(transport_.reset_requested());
  stop();
  EXPECT_EQ(stopped_, 1);
}

TEST_F(QueueSetTest, QueueLargerThanTheDevicesMaximumAsksForAReset) {
  GuestDriver large(memory_, {.queue_size = 32, .base = {0x4000}});
  set_->start({.features = 0, .queues = {large.layout()}});
  loop_.run_until_idle();
  EXPECT_TRUE(transport_.reset_requested());
  stop();
}

TEST_F(QueueSetTest, QueueThatTheDriverDoesNotUseIsLeftAlone) {
  set_->start({.features = 0, .queues = {QueueLayout{}}});
  loop_.run_until_idle();
  set_->runner(0).doorbell().notify();
  loop_.run_until_idle();
  EXPECT_EQ(owner_.serve_calls, 0u);
  EXPECT_FALSE(transport_.reset_requested());
  stop();
  EXPECT_EQ(stopped_, 1);
}

TEST_F(QueueSetTest, StopOfAStoppedDeviceCallsBackAtOnce) {
  set_->stop([this] { ++stopped_; });
  EXPECT_EQ(stopped_, 1);
}

TEST_F(QueueSetTest, StopWaitsForWhatIsInFlight) {
  owner_.hold = true;
  start();
  offer();
  offer();
  loop_.run_until_idle();
  stop();
  EXPECT_EQ(stopped_, 0);
  offer();  // Not taken any more.
  loop_.run_until_idle();
  EXPECT_EQ(owner_.served.load(), 2u);
  owner_.finish_held();
  loop_.run_until_idle();
  EXPECT_EQ(stopped_, 1);
  EXPECT_EQ(driver_.collect_all().size(), 2u);
  EXPECT_FALSE(set_->runner(0).is_running());
}

TEST_F(QueueSetTest, OwnerMayFinishWhatItHoldsWhenItIsToldToStop) {
  owner_.hold = owner_.finish_at_stop = true;
  start();
  offer();
  loop_.run_until_idle();
  stop();
  EXPECT_EQ(stopped_, 1);
  EXPECT_EQ(owner_.stopping_calls, 1u);
}

TEST_F(QueueSetTest, DeviceStartsAgainAfterAStop) {
  for (int i = 1; i <= 3; ++i) {
    GuestDriver driver(memory_, {.queue_size = 8, .base = {0x8000}});
    set_->start({.features = 0, .queues = {driver.layout()}});
    driver.offer({DriverBuffer::readable(data_, 1)});
    set_->runner(0).doorbell().notify();
    loop_.run_until_idle();
    EXPECT_EQ(driver.collect_all().size(), 1u);
    stop();
    EXPECT_EQ(stopped_, i);
  }
}

TEST_F(QueueSetTest, StartAndStopInOneTurnKeepTheirOrder) {
  set_->start({.features = 0, .queues = {driver_.layout()}});
  set_->stop([this] { ++stopped_; });
  loop_.run_until_idle();
  EXPECT_EQ(stopped_, 1);
  EXPECT_FALSE(set_->runner(0).is_running());
}

// The home is another thread, as with an IOThread; this one plays vCPU.
TEST(QueueSetThreadTest, ServesStopsAndStartsAcrossThreads) {
  FakeGuestMemory memory(64 * 1024);
  auto thread = loop::IoThread::create({.name = "home"});
  ASSERT_TRUE(thread);
  FakeTransport transport;
  TestOwner owner;
  auto set = QueueSet::create({.home = &(*thread)->loop(),
                               .memory = &memory.memory(),
                               .name = "test",
                               .queue_sizes = {16}});
  ASSERT_TRUE(set);
  (*set)->attach(transport, owner);

  for (uint32_t round = 0; round < 50; ++round) {
    GuestDriver driver(memory, {.queue_size = 16, .features = kVirtioRingEventIdx});
    const GuestAddress data = driver.allocate(16);
    (*set)->start({.features = driver.features(), .queues = {driver.layout()}});
    const uint32_t before = owner.served.load();
    uint32_t done = 0;
    for (uint32_t i = 0; i < 20; ++i) {
      driver.offer({DriverBuffer::readable(data, 16)});
      if (driver.kick_wanted()) (*set)->runner(0).doorbell().notify();
      // Half of the rounds stop in the middle of it.
      while (round % 2 == 0 && done <= i) done += driver.collect() ? 1 : 0;
      if (driver.free_descriptors() == 0) break;
    }
    std::binary_semaphore stopped(0);
    (*set)->stop([&stopped] { stopped.release(); });
    stopped.acquire();
    if (round % 2 == 0) {
      EXPECT_EQ(owner.served.load() - before, 20u);
    }
  }
  EXPECT_FALSE(transport.reset_requested());
}

}  // namespace
}  // namespace skiff::devices
