// SPDX-License-Identifier: GPL-2.0-or-later
// InflightLog, and a VirtQueue that keeps one: whoever serves the queue next carries out exactly
// what was taken and not answered, whichever store its predecessor died at.
#include "devices/virtio/inflight_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint16_t kSize = 8;

struct alignas(64) Region {
  std::byte bytes[16 + 16 * kSize + 48] = {};
};

class InflightLogTest : public ::testing::Test {
 protected:
  InflightLog open() { return *InflightLog::open(region_.bytes, kSize); }
  Region region_;
};

TEST_F(InflightLogTest, RoomIsAsOtherBackEndsCountIt) {
  EXPECT_EQ(InflightLog::bytes_for(128), 2112u);  // 16 + 128 * 16, up to a multiple of 64.
  EXPECT_EQ(InflightLog::bytes_for(1), 64u);
}

TEST_F(InflightLogTest, WhatIsTakenIsOpenInItsOrder) {
  InflightLog log = open();
  EXPECT_THAT(log.recover(0), IsEmpty());
  log.taken(5);
  log.taken(2);
  log.taken(7);
  EXPECT_THAT(open().recover(0), ElementsAre(5, 2, 7));
}

TEST_F(InflightLogTest, WhatIsPublishedIsNotOpen) {
  InflightLog log = open();
  for (const uint16_t head : std::to_array<uint16_t>({1, 2, 3})) log.taken(head);
  log.finished(2);
  log.published(1);
  EXPECT_THAT(open().recover(1), ElementsAre(1, 3));
  log.given_back(3);
  EXPECT_THAT(open().recover(1), ElementsAre(1));
}

TEST_F(InflightLogTest, DeathBetweenUsedIndexAndMarksIsRepaired) {
  InflightLog log = open();
  for (const uint16_t head : std::to_array<uint16_t>({4, 6, 1})) log.taken(head);
  log.finished(6);
  log.published(1);
  log.finished(4);
  log.finished(1);
  // The used ring's index became 3, and then came the end.
  EXPECT_THAT(open().recover(3), IsEmpty());
}

TEST_F(InflightLogTest, DeathBeforeTheUsedIndexLeavesItOpen) {
  InflightLog log = open();
  for (const uint16_t head : std::to_array<uint16_t>({4, 6})) log.taken(head);
  log.finished(4);
  EXPECT_THAT(open().recover(0), ElementsAre(4, 6));
}

TEST_F(InflightLogTest, OrderGoesOnBehindWhatWasOpen) {
  InflightLog first = open();
  first.taken(3);
  InflightLog second = open();
  EXPECT_THAT(second.recover(0), ElementsAre(3));
  second.taken(0);
  EXPECT_THAT(open().recover(0), ElementsAre(3, 0));
}

TEST_F(InflightLogTest, IndexMayWrap) {
  InflightLog log = open();
  log.recover(0xffff);
  log.taken(1);
  log.taken(2);
  log.finished(1);
  log.finished(2);
  EXPECT_THAT(open().recover(1), IsEmpty());
}

TEST_F(InflightLogTest, LogOfAnotherVersionOrSizeIsRefused) {
  open();
  EXPECT_FALSE(InflightLog::open(region_.bytes, kSize * 2));
  EXPECT_FALSE(InflightLog::open(std::span(region_.bytes).first(16 + 16 * kSize - 1), kSize));
  EXPECT_FALSE(InflightLog::open(std::span(region_.bytes).subspan(4), kSize / 2));
  region_.bytes[8] = std::byte{9};
  EXPECT_FALSE(InflightLog::open(region_.bytes, kSize));
}

TEST_F(InflightLogTest, NonsenseInTheLogIsSurvived) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    for (std::byte& byte : region_.bytes) byte = static_cast<std::byte>(random());
    region_.bytes[8] = std::byte{1};
    region_.bytes[9] = std::byte{0};
    region_.bytes[10] = std::byte{kSize};
    region_.bytes[11] = std::byte{0};
    auto heads = open().recover(static_cast<uint16_t>(random()));
    ASSERT_LE(heads.size(), size_t{kSize});
    std::ranges::sort(heads);
    ASSERT_EQ(std::ranges::adjacent_find(heads), heads.end());
  }
}

class ResumedQueueTest : public InflightLogTest {
 protected:
  // A queue of somebody's who serves it from now on.
  struct Server {
    Server(ResumedQueueTest& test, bool logs, uint16_t next_available = 0)
        : log(test.open()), queue(test.memory_) {
      QueueLayout layout = test.driver_.layout();
      layout.resume = QueueResume{next_available, logs ? &log : nullptr};
      EXPECT_TRUE(queue.configure(layout, 0));
    }
    std::optional<uint16_t> pop() {
      if (queue.pop(chain) != VirtQueue::Pop::kChain) return std::nullopt;
      return chain.head();
    }
    InflightLog log;
    VirtQueue queue;
    DescriptorChain chain;
  };
  uint16_t offer() { return driver_.offer({DriverBuffer::readable(data_, 16)}); }

  FakeGuestMemory memory_{64 * 1024};
  GuestDriver driver_{memory_, {.queue_size = kSize}};
  GuestAddress data_ = driver_.allocate(64);
};

TEST_F(ResumedQueueTest, NextServerTakesWhatTheFirstHadTakenAndThenGoesOn) {
  const uint16_t first = offer();
  const uint16_t second = offer();
  const uint16_t third = offer();
  {
    Server killed(*this, true);
    EXPECT_EQ(killed.pop(), first);
    EXPECT_EQ(killed.pop(), second);
    killed.queue.push_used(second, 0);
    killed.queue.publish_used();
  }
  Server next(*this, true);
  EXPECT_EQ(next.pop(), first);
  EXPECT_EQ(next.pop(), third);
  EXPECT_EQ(next.pop(), std::nullopt);
  next.queue.push_used(third, 0);
  next.queue.push_used(first, 0);
  next.queue.publish_used();
  EXPECT_THAT(driver_.used_heads(), ElementsAre(second, third, first));
}

TEST_F(ResumedQueueTest, WithoutALogItGoesOnWhereItIsTold) {
  const uint16_t first = offer();
  {
    Server stopped(*this, false);
    EXPECT_EQ(stopped.pop(), first);
    stopped.queue.push_used(first, 0);
    stopped.queue.publish_used();
  }
  const uint16_t second = offer();
  Server next(*this, false, 1);
  EXPECT_EQ(next.pop(), second);
  next.queue.push_used(second, 0);
  next.queue.publish_used();
  EXPECT_EQ(driver_.used_index(), 2);
}

TEST_F(ResumedQueueTest, TakenBackChainIsTakenAgainByTheNextServer) {
  const uint16_t first = offer();
  {
    Server stopped(*this, true);
    EXPECT_EQ(stopped.pop(), first);
    stopped.queue.undo_pop(first);
    EXPECT_EQ(stopped.pop(), first);
    stopped.queue.undo_pop(first);
  }
  Server next(*this, true);
  EXPECT_EQ(next.pop(), first);
  EXPECT_EQ(next.pop(), std::nullopt);
}

TEST_F(ResumedQueueTest, NotificationsComeBackOnOnlyWhenNothingIsOpen) {
  offer();
  {
    Server killed(*this, true);
    killed.pop();
  }
  Server next(*this, true);
  EXPECT_EQ(next.queue.enable_notifications(), VirtQueue::Rearm::kMoreAvailable);
  next.pop();
  EXPECT_EQ(next.queue.enable_notifications(), VirtQueue::Rearm::kIdle);
}

TEST_F(ResumedQueueTest, RequestsOfABrokenQueueAreNotCarriedOutAgain) {
  offer();
  {
    Server broken(*this, true);
    const auto head = broken.pop();
    driver_.offer_head(kSize);
    EXPECT_EQ(broken.pop(), std::nullopt);
    EXPECT_TRUE(broken.queue.is_broken());
    broken.queue.push_used(*head, 0);
  }
  EXPECT_THAT(open().recover(0), IsEmpty());
}

// Deaths at random moments between whole operations: each request is answered exactly once.
TEST_F(ResumedQueueTest, ManyDeathsLoseNothingAndAnswerNothingTwice) {
  std::mt19937 random(11);
  std::multiset<uint16_t> waiting;
  uint32_t answered = 0;
  for (int death = 0; death < 500; ++death) {
    Server server(*this, true);
    std::vector<uint16_t> taken;
    for (auto steps = random() % 30; steps > 0; --steps) {
      if (random() % 3 == 0 && driver_.free_descriptors() > 0) {
        waiting.insert(offer());
      } else if (random() % 2 == 0) {
        if (const auto head = server.pop()) taken.push_back(*head);
      } else if (!taken.empty()) {
        const size_t at = random() % taken.size();
        server.queue.push_used(taken[at], 0);
        taken.erase(taken.begin() + static_cast<std::ptrdiff_t>(at));
        if (random() % 2 == 0) server.queue.publish_used();
      }
      ASSERT_FALSE(server.queue.is_broken()) << server.queue.broken_reason();
    }
    while (const auto used = driver_.collect()) {
      const auto found = waiting.find(static_cast<uint16_t>(used->head));
      ASSERT_NE(found, waiting.end()) << "head " << used->head << " answered twice";
      waiting.erase(found);
      ++answered;
    }
  }
  Server last(*this, true);
  while (const auto head = last.pop()) last.queue.push_used(*head, 0);
  last.queue.publish_used();
  for (const uint32_t head : driver_.used_heads()) {
    const auto found = waiting.find(static_cast<uint16_t>(head));
    ASSERT_NE(found, waiting.end());
    waiting.erase(found);
  }
  EXPECT_THAT(waiting, IsEmpty());
  EXPECT_GT(answered, 500u);
}

}  // namespace
}  // namespace skiff::devices
