// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/rng/virtio_rng.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

class VirtioRngTest : public ::testing::Test {
 protected:
  void start(VirtioRng::Source source) {
    auto rng = VirtioRng::create(loop_, memory_, std::move(source));
    ASSERT_TRUE(rng);
    rng_ = *std::move(rng);
    rng_->attach(transport_);
    rng_->start({.features = 0, .queues = {driver_.layout()}});
    loop_.run_until_idle();
  }
  void kick() {
    rng_->doorbell(0).notify();
    loop_.run_until_idle();
  }
  bool stop() {
    bool stopped = false;
    rng_->stop([&stopped] { stopped = true; });
    loop_.run_until_idle();
    return stopped;
  }

  FakeGuestMemory memory_{1 << 20};
  loop::ManualLoop loop_;
  FakeTransport transport_;
  GuestDriver driver_{memory_, {.queue_size = 16}};
  std::unique_ptr<VirtioRng> rng_;
};

TEST_F(VirtioRngTest, SaysWhatItIs) {
  start(VirtioRng::host_random);
  EXPECT_EQ(rng_->id(), VirtioId::kEntropy);
  EXPECT_EQ(rng_->queue_count(), 1);
  std::array<uint8_t, 4> config{1, 2, 3, 4};
  rng_->read_config(0, config);
  EXPECT_THAT(config, ::testing::Each(0));
  EXPECT_TRUE(stop());
}

TEST_F(VirtioRngTest, BuffersAreFilledByTheHost) {
  start(VirtioRng::host_random);
  const GuestAddress data = driver_.allocate(8192);
  driver_.offer({DriverBuffer::writable(data, 100), DriverBuffer::writable(data + 200, 5000)});
  kick();
  const auto used = driver_.collect_all();
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0].written_bytes, 5100u);
  const auto first = *memory_.memory().translate(data, 100);
  const auto second = *memory_.memory().translate(data + 200, 5000);
  EXPECT_TRUE(std::ranges::any_of(first, [](std::byte b) { return b != std::byte{0}; }));
  EXPECT_TRUE(std::ranges::any_of(second.last(64), [](std::byte b) { return b != std::byte{0}; }));
  const auto gap = *memory_.memory().translate(data + 100, 100);
  EXPECT_TRUE(std::ranges::all_of(gap, [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(transport_.interrupts(), 1u);
  EXPECT_TRUE(stop());
}

TEST_F(VirtioRngTest, GreedyGuestGetsABoundedAmountPerTurn) {
  uint64_t given = 0;
  start([&given](std::span<std::byte> into) {
    given += into.size();
    return static_cast<int64_t>(into.size());
  });
  const GuestAddress data = driver_.allocate(300 * 1024);
  for (int i = 0; i < 8; ++i) driver_.offer({DriverBuffer::writable(data, 300 * 1024)});
  rng_->doorbell(0).notify();
  uint64_t most_in_a_turn = 0;
  for (uint64_t before = 0; loop_.loop().run_once(loop::EventLoop::Wait::kNo); before = given)
    most_in_a_turn = std::max(most_in_a_turn, given - before);
  EXPECT_EQ(most_in_a_turn, VirtioRng::kBytesPerTurn);
  EXPECT_EQ(driver_.collect_all().size(), 8u);
  EXPECT_EQ(given, 8 * VirtioRng::kBytesPerTurn);
  EXPECT_TRUE(stop());
}

TEST_F(VirtioRngTest, SourceThatIsDryIsAskedAgainLater) {
  bool dry = true;
  start([&dry](std::span<std::byte> into) {
    return dry ? -int64_t{EAGAIN} : static_cast<int64_t>(into.size());
  });
  driver_.offer({DriverBuffer::writable(driver_.allocate(16), 16)});
  kick();
  EXPECT_TRUE(driver_.collect_all().empty());
  dry = false;
  loop_.advance_ns(VirtioRng::kRetryNs);
  EXPECT_EQ(driver_.collect_all().size(), 1u);
  EXPECT_TRUE(stop());
}

TEST_F(VirtioRngTest, StopDoesNotWaitForADrySource) {
  start([](std::span<std::byte>) { return -int64_t{EAGAIN}; });
  driver_.offer({DriverBuffer::writable(driver_.allocate(16), 16)});
  kick();
  EXPECT_TRUE(stop());
  EXPECT_EQ(driver_.used_index(), 0);
}

TEST_F(VirtioRngTest, InterruptedSourceIsAskedAtOnce) {
  int calls = 0;
  start([&calls](std::span<std::byte> into) {
    return ++calls == 1 ? -int64_t{EINTR} : static_cast<int64_t>(std::min<size_t>(into.size(), 3));
  });
  driver_.offer({DriverBuffer::writable(driver_.allocate(16), 10)});
  kick();
  EXPECT_EQ(driver_.collect_all().at(0).written_bytes, 10u);
  EXPECT_EQ(calls, 5);
  EXPECT_TRUE(stop());
}

TEST_F(VirtioRngTest, ChainWithNothingToFillIsGivenBackEmpty) {
  start(VirtioRng::host_random);
  driver_.offer({DriverBuffer::readable(driver_.allocate(16), 16)});
  kick();
  EXPECT_EQ(driver_.collect_all().at(0).written_bytes, 0u);
  EXPECT_TRUE(stop());
}

TEST_F(VirtioRngTest, BrokenRingAsksForAReset) {
  start(VirtioRng::host_random);
  driver_.offer_raw({{.address = 0, .length_bytes = 1, .flags = VirtDescriptor::kNext, .next = 0}});
  kick();
  EXPECT_TRUE(transport_.reset_requested());
  EXPECT_TRUE(stop());
}

}  // namespace
}  // namespace skiff::devices
