// SPDX-License-Identifier: GPL-2.0-or-later
// Driver and device hammer one queue from two threads and sleep whenever the rules let them. A lost
// kick or a lost interrupt leaves one of them asleep for ever, which the time limit turns into a
// failure.
#include <gtest/gtest.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virtio_device.h"
#include "loop/thread.h"

namespace skiff::devices {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SKIFF_SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SKIFF_SLOW_BUILD 1
#endif
#endif
#ifdef SKIFF_SLOW_BUILD
constexpr uint32_t kSlowdown = 30;  // The indices of the deep queues still wrap.
#else
constexpr uint32_t kSlowdown = 1;
#endif

// What a kick and an interrupt are in the end, without the system calls that would keep the two
// threads from ever meeting within the few nanoseconds that matter.
class Bell {
 public:
  void ring() { rings_.fetch_add(1); }
  // False when nobody rang for a time in which everything should have happened.
  bool wait() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    for (uint32_t spins = 1; rings_.load() == heard_; ++spins) {
      if (spins % 4096 != 0) continue;
      if (std::chrono::steady_clock::now() > deadline) return false;
      ::sched_yield();  // The other thread may need this CPU.
    }
    heard_ = rings_.load();
    return true;
  }
  uint32_t rings() const { return rings_.load(); }

 private:
  std::atomic<uint32_t> rings_{0};
  uint32_t heard_ = 0;  // The waiting thread's.
};

struct Shared {
  const GuestMemory& memory;
  VirtQueue& queue;
  uint32_t requests = 0;
  Bell kick;
  Bell interrupt;
  std::atomic<bool> give_up{false};
};

// The request is a number; the answer is its complement, which shows that the bytes travelled, too.
void run_device(Shared& shared) {
  VirtQueue& queue = shared.queue;
  DescriptorChain chain;
  uint32_t served = 0;
  while (served < shared.requests && !shared.give_up.load()) {
    queue.disable_notifications();
    while (queue.pop(chain) == VirtQueue::Pop::kChain) {
      uint32_t number = 0;
      std::memcpy(&number, chain.readable()[0].iov_base, sizeof(number));
      number = ~number;
      std::memcpy(chain.writable()[0].iov_base, &number, sizeof(number));
      queue.push_used(chain.head(), sizeof(number));
      ++served;
      // Now and then one at a time, now and then a batch.
      if (served % 3 != 0 && queue.publish_used()) shared.interrupt.ring();
    }
    if (queue.publish_used()) shared.interrupt.ring();
    if (queue.is_broken()) break;
    if (queue.enable_notifications() == VirtQueue::Rearm::kMoreAvailable) continue;
    if (served < shared.requests && !shared.kick.wait()) break;
  }
  EXPECT_FALSE(queue.is_broken()) << queue.broken_reason();
  EXPECT_EQ(served, shared.requests) << "The device slept although there was work";
  if (served != shared.requests) shared.give_up.store(true);
}

class Driver {
 public:
  Driver(Shared& shared, GuestDriver& ring) : shared_(shared), ring_(ring) {
    for (uint16_t i = 0; i < ring.layout().size / 2; ++i)
      free_slots_.push_back(ring_.allocate(2 * sizeof(uint32_t)));
    slot_of_head_.resize(ring.layout().size);
  }

  void run() {
    while (done_ < shared_.requests && !shared_.give_up.load()) {
      if (offer_some() && ring_.publish()) shared_.kick.ring();
      ring_.disable_interrupts();
      collect();
      if (ring_.enable_interrupts()) continue;
      if (!free_slots_.empty() && next_ < shared_.requests) continue;  // It can offer more at once.
      if (done_ < shared_.requests && !shared_.interrupt.wait()) break;
    }
    EXPECT_EQ(done_, shared_.requests) << "The driver slept although there was an answer";
    EXPECT_EQ(wrong_, 0u);
    if (done_ != shared_.requests) shared_.give_up.store(true);
  }

 private:
  bool offer_some() {
    bool any = false;
    while (!free_slots_.empty() && next_ < shared_.requests) {
      const GuestAddress slot = free_slots_.back();
      free_slots_.pop_back();
      EXPECT_TRUE(shared_.memory.store(slot, next_++));
      const std::array<DriverBuffer, 2> chain{DriverBuffer::readable(slot, 4),
                                              DriverBuffer::writable(slot + 4, 4)};
      const auto head = ring_.add(chain);
      EXPECT_TRUE(head.has_value());
      slot_of_head_[*head] = slot;
      any = true;
      if (next_ % 5 == 0) break;
    }
    return any;
  }

  void collect() {
    while (const auto used = ring_.collect()) {
      const GuestAddress slot = slot_of_head_[used->head];
      const auto number = shared_.memory.load<uint32_t>(slot);
      const auto answer = shared_.memory.load<uint32_t>(slot + 4);
      wrong_ += *answer == ~*number ? 0 : 1;
      free_slots_.push_back(slot);
      ++done_;
    }
  }

  Shared& shared_;
  GuestDriver& ring_;
  std::vector<GuestAddress> free_slots_;
  std::vector<GuestAddress> slot_of_head_;
  uint32_t next_ = 0;
  uint32_t done_ = 0;
  uint32_t wrong_ = 0;
};

struct RaceCase {
  const char* name;
  uint64_t features;
  uint16_t queue_size;
  uint32_t requests;  // More than the indices count, so that they wrap.
};

void PrintTo(const RaceCase& race, std::ostream* out) { *out << race.name; }

class VirtQueueRaceTest : public ::testing::TestWithParam<RaceCase> {};

TEST_P(VirtQueueRaceTest, NoKickAndNoInterruptIsLost) {
  const auto [name, features, queue_size, requests] = GetParam();
  FakeGuestMemory memory(64 * 1024);
  GuestDriver ring(memory, {.queue_size = queue_size, .features = features});
  VirtQueue queue(memory);
  ASSERT_TRUE(queue.configure(ring.layout(), features));
  Shared shared{.memory = memory, .queue = queue, .requests = requests / kSlowdown};
  Driver driver(shared, ring);

  auto device = loop::Thread::create({.name = "device"}, [&shared] { run_device(shared); });
  ASSERT_TRUE(device);
  driver.run();
  device->join();
  // Both slept and were woken, else this tests nothing; and not for each request.
  EXPECT_GT(shared.kick.rings(), 0u);
  EXPECT_GT(shared.interrupt.rings(), 0u);
  RecordProperty("kicks", std::to_string(shared.kick.rings()));
  RecordProperty("interrupts", std::to_string(shared.interrupt.rings()));
}

INSTANTIATE_TEST_SUITE_P(
    Rings, VirtQueueRaceTest,
    ::testing::Values(RaceCase{"EventIdxOneDeep", kVirtioRingEventIdx, 2, 300'000},
                      RaceCase{"EventIdxDeep", kVirtioRingEventIdx, 64, 2'000'000},
                      RaceCase{"FlagsOneDeep", 0, 2, 300'000},
                      RaceCase{"FlagsDeep", 0, 64, 2'000'000}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

}  // namespace
}  // namespace skiff::devices
