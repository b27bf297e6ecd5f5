// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/null_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "block/io_engine.h"
#include "block/null_device.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/testing/manual_loop.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using ::testing::ElementsAre;

// Requests that note the order in which they completed.
struct Numbered {
  IoRequest io;
  size_t number = 0;
  std::vector<size_t>* order = nullptr;
};

std::vector<Numbered> make_reads(size_t count, std::vector<size_t>& order) {
  std::vector<Numbered> reads(count);
  for (size_t i = 0; i < count; ++i) {
    reads[i].number = i;
    reads[i].order = &order;
  }
  for (Numbered& read : reads) {
    read.io = {.length_bytes = 0,
               .done =
                   [](IoRequest& io, int32_t result) {
                     EXPECT_EQ(result, 0);
                     auto& self = *static_cast<Numbered*>(io.owner);
                     self.order->push_back(self.number);
                   },
               .owner = &read};
  }
  return reads;
}

void submit(IoEngine& engine, Numbered& read) {
  IoRequest* one = &read.io;
  engine.submit({&one, 1});
}

TEST(NullEngineTest, ConstantLatencyCompletesInOrderAndNotBeforeItsTime) {
  loop::ManualLoop manual;
  const NullDevice device({.latency_ns = 30'000});
  NullEngine engine(IoEngineKind::kIoUring, device.target(), manual.loop());
  std::vector<size_t> order;
  auto reads = make_reads(3, order);
  submit(engine, reads[0]);
  manual.advance_ns(10'000);
  submit(engine, reads[1]);
  submit(engine, reads[2]);
  manual.advance_ns(19'999);
  EXPECT_THAT(order, ElementsAre());
  manual.advance_ns(1);
  EXPECT_THAT(order, ElementsAre(0));
  manual.advance_ns(9'999);
  EXPECT_EQ(engine.in_flight(), 2u);
  manual.advance_ns(1);
  EXPECT_THAT(order, ElementsAre(0, 1, 2));
  EXPECT_EQ(engine.in_flight(), 0u);
}

TEST(NullEngineTest, VariedLatencyCompletesInTheOrderOfTheDeadlines) {
  loop::ManualLoop manual;
  const NullDevice device(
      {.latency_ns = 1'000'000, .distribution = NullDevice::Distribution::kLognormal});
  NullEngine engine(IoEngineKind::kLinuxAio, device.target(), manual.loop());
  std::vector<size_t> order;
  auto reads = make_reads(200, order);
  std::vector<std::pair<int64_t, size_t>> expected;
  for (size_t i = 0; i < reads.size(); ++i) {
    expected.emplace_back(device.latency_ns(i), i);
    submit(engine, reads[i]);
  }
  std::ranges::sort(expected);
  while (engine.in_flight() > 0) manual.advance_ns(1000);
  ASSERT_EQ(order.size(), reads.size());
  size_t swapped = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(order[i], expected[i].second);
    swapped += order[i] != i ? 1 : 0;
  }
  EXPECT_GT(swapped, 100u);
}

TEST(NullEngineTest, WithoutLatencyABatchCompletesInTheNextTurn) {
  loop::ManualLoop manual;
  const NullDevice device({});
  NullEngine engine(IoEngineKind::kPosixAio, device.target(), manual.loop());
  std::vector<size_t> order;
  auto reads = make_reads(32, order);
  std::vector<IoRequest*> batch;
  batch.reserve(reads.size());
  for (Numbered& read : reads) batch.push_back(&read.io);
  engine.submit(batch);
  EXPECT_THAT(order, ElementsAre());
  manual.loop().run_once(loop::EventLoop::Wait::kNo);
  EXPECT_EQ(order.size(), reads.size());
  EXPECT_EQ(engine.name(), "posix-aio");
}

TEST(NullEngineTest, FloodLeavesTheTurnToOthersInBetween) {
  loop::ManualLoop manual;
  const NullDevice device({});
  NullEngine engine(IoEngineKind::kIoUring, device.target(), manual.loop());
  std::vector<size_t> order;
  auto reads = make_reads(1000, order);
  std::vector<IoRequest*> batch;
  batch.reserve(reads.size());
  for (Numbered& read : reads) batch.push_back(&read.io);
  engine.submit(batch);
  size_t others = 0;
  loop::BottomHalf device_bh(manual.loop(), loop::Priority::kDevice, [&] {
    ++others;
    if (engine.in_flight() > 0) device_bh.schedule();
  });
  device_bh.schedule();
  manual.run_until_idle();
  EXPECT_EQ(order.size(), reads.size());
  EXPECT_GE(others, reads.size() / 64);
}

// Lower bounds only: how much later it is depends on the machine.
TEST(NullLatencyTest, EveryEngineTakesItsTime) {
  auto pool = loop::WorkerPool::create({});
  auto loop = loop::EventLoop::create();
  ASSERT_TRUE(pool && loop);
  const loop::MonotonicClock clock;
  for (const int64_t latency_ns : {20'000, 2'000'000}) {
    const NullDevice device({.latency_ns = latency_ns});
    for (const IoEngineKind kind : kAllEngineKinds) {
      if (kind == IoEngineKind::kIoUring && !(*loop)->uses_io_uring()) continue;
      auto engine = make_io_engine(kind, device.target(), **loop, **pool);
      ASSERT_TRUE(engine) << engine.error().message();
      std::vector<size_t> order;
      auto reads = make_reads(1, order);
      const int64_t start_ns = clock.now_ns();
      submit(**engine, reads[0]);
      while ((*engine)->in_flight() > 0) (*loop)->run_once(loop::EventLoop::Wait::kUntilEvent);
      EXPECT_GE(clock.now_ns() - start_ns, latency_ns) << engine_name(kind);
      EXPECT_EQ(order.size(), 1u);
    }
  }
}

}  // namespace
}  // namespace skiff::block
