// SPDX-License-Identifier: GPL-2.0-or-later
// Tests of VirtQueue against a driver that follows the rules, and against rings that do not.
#include "devices/virtio/virt_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kAllFeatures = kVirtioRingEventIdx | kVirtioRingIndirectDesc;
constexpr uint16_t kNext = VirtDescriptor::kNext;
constexpr uint16_t kWrite = VirtDescriptor::kWrite;
constexpr uint16_t kIndirect = VirtDescriptor::kIndirect;

class VirtQueueTest : public ::testing::Test {
 protected:
  explicit VirtQueueTest(uint64_t features = kAllFeatures)
      : driver_(memory_, {.queue_size = 8, .features = features, .indirect_entries = 16}),
        data_(driver_.allocate(4096)),
        queue_(memory_) {
    EXPECT_TRUE(queue_.configure(driver_.layout(), features));
  }

  void expect_broken(std::string_view reason) {
    EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kBroken);
    EXPECT_TRUE(queue_.is_broken());
    EXPECT_THAT(std::string(queue_.broken_reason()), HasSubstr(std::string(reason)));
    EXPECT_EQ(queue_.in_flight(), 0);
    // It stays so, whatever the driver does next.
    driver_.offer({DriverBuffer::readable(data_, 1)});
    EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kBroken);
  }

  std::byte* host(GuestAddress address) { return memory_.memory().translate(address, 1)->data(); }

  // A table of raw descriptors somewhere in memory.
  GuestAddress place_table(const std::vector<VirtDescriptor>& entries) {
    const GuestAddress table = driver_.allocate(entries.size() * kVirtDescriptorBytes);
    for (uint32_t i = 0; i < entries.size(); ++i) store_descriptor(host(table), i, entries[i]);
    return table;
  }

  FakeGuestMemory memory_{64 * 1024};
  GuestDriver driver_;
  GuestAddress data_;
  VirtQueue queue_;
  DescriptorChain chain_;
};

class VirtQueueWithFlagsTest : public VirtQueueTest {
 protected:
  VirtQueueWithFlagsTest() : VirtQueueTest(0) {}
};

TEST_F(VirtQueueTest, EmptyRingHasNothing) {
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kEmpty);
  EXPECT_FALSE(queue_.publish_used());
}

TEST_F(VirtQueueTest, ChainArrivesAsHostBuffersInOrder) {
  const uint16_t head =
      driver_.offer({DriverBuffer::readable(data_, 16), DriverBuffer::readable(data_ + 100, 20),
                     DriverBuffer::writable(data_ + 200, 512)});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(chain_.head(), head);
  ASSERT_EQ(chain_.readable().size(), 2u);
  EXPECT_EQ(chain_.readable()[0].iov_base, host(data_));
  EXPECT_EQ(chain_.readable()[1].iov_base, host(data_ + 100));
  EXPECT_EQ(chain_.readable()[1].iov_len, 20u);
  ASSERT_EQ(chain_.writable().size(), 1u);
  EXPECT_EQ(chain_.writable()[0].iov_base, host(data_ + 200));
  EXPECT_EQ(chain_.readable_bytes(), 36u);
  EXPECT_EQ(chain_.writable_bytes(), 512u);
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kEmpty);
}

TEST_F(VirtQueueTest, UsedElementsAppearOnlyWhenPublished) {
  const uint16_t first = driver_.offer({DriverBuffer::writable(data_, 16)});
  const uint16_t second = driver_.offer({DriverBuffer::writable(data_, 16)});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  queue_.push_used(second, 7);
  queue_.push_used(first, 9);
  EXPECT_FALSE(driver_.collect().has_value());
  EXPECT_TRUE(queue_.publish_used());
  EXPECT_THAT(driver_.collect_all(), ElementsAre(UsedElement{second, 7u}, UsedElement{first, 9u}));
  EXPECT_EQ(queue_.in_flight(), 0);
}

TEST_F(VirtQueueTest, IndirectChainEqualsDirectChain) {
  const std::array<DriverBuffer, 3> buffers{DriverBuffer::readable(data_, 16),
                                            DriverBuffer::writable(data_ + 64, 64),
                                            DriverBuffer::writable(data_ + 256, 1)};
  driver_.offer(buffers, GuestDriver::Placement::kIndirect);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(chain_.readable().size(), 1u);
  EXPECT_EQ(chain_.writable().size(), 2u);
  EXPECT_EQ(chain_.writable_bytes(), 65u);
}

TEST_F(VirtQueueTest, IndirectTableMayFollowDirectDescriptors) {  // 2.7.5.3.2
  const GuestAddress table =
      place_table({{.address = data_.value, .length_bytes = 5, .flags = kWrite}});
  driver_.offer_raw({{.address = data_.value, .length_bytes = 3, .flags = kNext, .next = 1},
                     {.address = table.value, .length_bytes = 16, .flags = kIndirect | kWrite}});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(chain_.readable_bytes(), 3u);
  EXPECT_EQ(chain_.writable_bytes(), 5u);
}

TEST_F(VirtQueueTest, ChainAsLongAsTheQueueIsTaken) {
  const std::vector<DriverBuffer> buffers(8, DriverBuffer::readable(data_, 2));
  driver_.offer(buffers);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(chain_.readable().size(), 8u);
}

TEST_F(VirtQueueTest, IndirectChainAsLongAsTheQueueIsTaken) {
  const std::vector<DriverBuffer> buffers(8, DriverBuffer::readable(data_, 2));
  driver_.offer(buffers, GuestDriver::Placement::kIndirect);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(chain_.readable().size(), 8u);
}

TEST_F(VirtQueueTest, IndirectChainLongerThanTheQueueBreaksIt) {
  const std::vector<DriverBuffer> buffers(9, DriverBuffer::readable(data_, 2));
  driver_.offer(buffers, GuestDriver::Placement::kIndirect);
  expect_broken("loops or is longer");
}

TEST_F(VirtQueueTest, BufferOfLengthZeroYieldsNothingWhereverItIs) {
  driver_.offer_raw({{.address = ~uint64_t{0}, .length_bytes = 0, .flags = kNext, .next = 1},
                     {.address = data_.value, .length_bytes = 4, .flags = kWrite}});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_TRUE(chain_.readable().empty());
  EXPECT_EQ(chain_.writable().size(), 1u);
}

TEST_F(VirtQueueTest, WritableBufferOfLengthZeroStillEndsTheReadablePart) {
  driver_.offer_raw({{.address = 0, .length_bytes = 0, .flags = kNext | kWrite, .next = 1},
                     {.address = data_.value, .length_bytes = 4}});
  expect_broken("readable buffer follows");
}

TEST_F(VirtQueueTest, ChainThatPointsAtItselfBreaksTheQueue) {
  driver_.offer_raw({{.address = data_.value, .length_bytes = 4, .flags = kNext, .next = 0}});
  expect_broken("loops or is longer");
}

TEST_F(VirtQueueTest, ChainThatLoopsThroughOthersBreaksTheQueue) {
  driver_.offer_raw({{.address = data_.value, .length_bytes = 4, .flags = kNext, .next = 1},
                     {.address = data_.value, .length_bytes = 4, .flags = kNext, .next = 2},
                     {.address = data_.value, .length_bytes = 4, .flags = kNext, .next = 0}});
  expect_broken("loops or is longer");
}

TEST_F(VirtQueueTest, LoopOfEmptyBuffersEnds) {
  driver_.offer_raw({{.address = 0, .length_bytes = 0, .flags = kNext, .next = 0}});
  expect_broken("loops or is longer");
}

TEST_F(VirtQueueTest, IndirectTableThatLoopsBreaksTheQueue) {
  const GuestAddress table =
      place_table({{.address = data_.value, .length_bytes = 1, .flags = kNext, .next = 1},
                   {.address = data_.value, .length_bytes = 1, .flags = kNext, .next = 0}});
  driver_.offer_raw({{.address = table.value, .length_bytes = 32, .flags = kIndirect}});
  expect_broken("loops or is longer");
}

TEST_F(VirtQueueTest, HeadOutsideTheQueueBreaksIt) {
  driver_.offer_head(8);
  expect_broken("head index");
}

TEST_F(VirtQueueTest, NextOutsideTheTableBreaksTheQueue) {
  driver_.offer_raw({{.address = data_.value, .length_bytes = 4, .flags = kNext, .next = 8}});
  expect_broken("next is not within");
}

TEST_F(VirtQueueTest, NextOutsideTheIndirectTableBreaksTheQueue) {
  const GuestAddress table =
      place_table({{.address = data_.value, .length_bytes = 1, .flags = kNext, .next = 1}});
  driver_.offer_raw({{.address = table.value, .length_bytes = 16, .flags = kIndirect}});
  expect_broken("next is not within");
}

TEST_F(VirtQueueTest, NestedIndirectTableBreaksTheQueue) {
  const GuestAddress inner = place_table({{.address = data_.value, .length_bytes = 1}});
  const GuestAddress outer =
      place_table({{.address = inner.value, .length_bytes = 16, .flags = kIndirect}});
  driver_.offer_raw({{.address = outer.value, .length_bytes = 16, .flags = kIndirect}});
  expect_broken("holds an indirect");
}

TEST_F(VirtQueueTest, IndirectDescriptorWithNextBreaksTheQueue) {
  const GuestAddress table = place_table({{.address = data_.value, .length_bytes = 1}});
  driver_.offer_raw(
      {{.address = table.value, .length_bytes = 16, .flags = kIndirect | kNext, .next = 1},
       {.address = data_.value, .length_bytes = 1}});
  expect_broken("has a next");
}

TEST_F(VirtQueueTest, IndirectTableOfOddSizeBreaksTheQueue) {
  driver_.offer_raw({{.address = data_.value, .length_bytes = 24, .flags = kIndirect}});
  expect_broken("multiple of 16");
}

TEST_F(VirtQueueTest, IndirectTableOfNothingBreaksTheQueue) {
  driver_.offer_raw({{.address = data_.value, .length_bytes = 0, .flags = kIndirect}});
  expect_broken("multiple of 16");
}

TEST_F(VirtQueueTest, IndirectTableOfFourGigabytesBreaksTheQueue) {
  driver_.offer_raw({{.address = data_.value, .length_bytes = 0xfffffff0, .flags = kIndirect}});
  expect_broken("multiple of 16");
}

TEST_F(VirtQueueTest, IndirectTableOutsideRamBreaksTheQueue) {
  driver_.offer_raw({{.address = 64 * 1024 - 16, .length_bytes = 32, .flags = kIndirect}});
  expect_broken("indirect table is not in RAM");
}

TEST_F(VirtQueueTest, MisalignedIndirectTableBreaksTheQueue) {
  driver_.offer_raw({{.address = data_.value + 1, .length_bytes = 16, .flags = kIndirect}});
  expect_broken("aligned");
}

TEST_F(VirtQueueWithFlagsTest, IndirectWithoutNegotiationBreaksTheQueue) {
  const GuestAddress table = place_table({{.address = data_.value, .length_bytes = 1}});
  driver_.offer_raw({{.address = table.value, .length_bytes = 16, .flags = kIndirect}});
  expect_broken("not negotiated");
}

TEST_F(VirtQueueTest, ReadableAfterWritableBreaksTheQueue) {
  driver_.offer({DriverBuffer::writable(data_, 4), DriverBuffer::readable(data_, 4)});
  expect_broken("readable buffer follows");
}

TEST_F(VirtQueueTest, BufferOutsideRamBreaksTheQueue) {
  driver_.offer({DriverBuffer::readable(GuestAddress{64 * 1024}, 1)});
  expect_broken("not in RAM");
}

TEST_F(VirtQueueTest, BufferThatLeavesRamBreaksTheQueue) {
  driver_.offer({DriverBuffer::readable(GuestAddress{64 * 1024 - 4}, 8)});
  expect_broken("not in RAM");
}

TEST_F(VirtQueueTest, BufferThatWrapsAroundBreaksTheQueue) {
  driver_.offer({DriverBuffer::readable(GuestAddress{~uint64_t{0} - 3}, 8)});
  expect_broken("not in RAM");
}

TEST_F(VirtQueueTest, AvailableIndexThatJumpsBreaksTheQueue) {
  driver_.set_available_index(9);
  expect_broken("jumped");
}

TEST_F(VirtQueueTest, AvailableIndexThatGoesBackBreaksTheQueue) {
  driver_.set_available_index(0xffff);
  expect_broken("jumped");
}

TEST_F(VirtQueueTest, HeadOfferedWhileInFlightBreaksTheQueue) {
  const uint16_t head = driver_.offer({DriverBuffer::readable(data_, 4)});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  driver_.offer_head(head);
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kBroken);
  EXPECT_THAT(std::string(queue_.broken_reason()), HasSubstr("in flight"));
  // What was in flight may still be completed; the guest does not see it.
  queue_.push_used(head, 0);
  EXPECT_EQ(queue_.in_flight(), 0);
  EXPECT_FALSE(queue_.publish_used());
  EXPECT_EQ(driver_.used_index(), 0);
}

TEST_F(VirtQueueTest, HeadMayBeOfferedAgainOnceItWasPushed) {
  for (int i = 0; i < 3; ++i) {
    driver_.offer({DriverBuffer::readable(data_, 4)});
    ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
    queue_.push_used(chain_.head(), 0);
    queue_.publish_used();
    ASSERT_TRUE(driver_.collect().has_value());
  }
}

TEST_F(VirtQueueTest, ChainTakenBackIsPoppedAgain) {
  const uint16_t head = driver_.offer({DriverBuffer::readable(data_, 4)});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  queue_.undo_pop(head);
  EXPECT_EQ(queue_.in_flight(), 0);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(chain_.head(), head);
}

TEST_F(VirtQueueTest, BrokenQueueWorksAgainAfterConfigure) {
  driver_.offer_head(100);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kBroken);
  GuestDriver fresh(memory_, {.queue_size = 4});
  ASSERT_TRUE(queue_.configure(fresh.layout(), 0));
  fresh.offer({DriverBuffer::readable(data_, 4)});
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
}

TEST_F(VirtQueueTest, ReleasedQueueHasNothingAndWritesNothing) {
  driver_.offer({DriverBuffer::readable(data_, 4)});
  queue_.release();
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kEmpty);
  queue_.disable_notifications();
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kIdle);
  EXPECT_FALSE(queue_.publish_used());
}

// Descriptors that change after they were read have no effect on what was popped.
TEST_F(VirtQueueTest, ChainIsACopy) {
  const uint16_t head = driver_.offer({DriverBuffer::readable(data_, 4)});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  driver_.write_descriptor(head, {.address = ~uint64_t{0}, .length_bytes = ~0u, .flags = kNext});
  EXPECT_EQ(chain_.readable()[0].iov_base, host(data_));
  EXPECT_EQ(chain_.readable()[0].iov_len, 4u);
}

// --- Layouts ---------------------------------------------------------------------------------

TEST_F(VirtQueueTest, LayoutsThatBreakTheRulesAreRefused) {
  const QueueLayout good = driver_.layout();
  auto refused = [&](auto change) {
    QueueLayout layout = good;
    change(layout);
    const auto result = queue_.configure(layout, 0);
    EXPECT_FALSE(queue_.is_configured());
    return !result && result.error().kind() == loop::ErrorKind::kCorrupt;
  };
  EXPECT_TRUE(refused([](QueueLayout& l) { l.size = 0; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.size = 3; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.size = 0xffff; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.size = 32768; }));  // Does not fit into RAM.
  EXPECT_TRUE(refused([](QueueLayout& l) { l.descriptors.value += 8; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.available.value += 1; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.used.value += 2; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.descriptors.value = 64 * 1024; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.used.value = 64 * 1024 - 64; }));
  EXPECT_TRUE(refused([](QueueLayout& l) { l.available.value = ~uint64_t{0} - 1; }));
  EXPECT_TRUE(queue_.configure(good, 0));
}

TEST(VirtQueueSizeTest, LargestQueueServesAllItsHeads) {
  FakeGuestMemory memory(2 << 20);
  GuestDriver driver(memory, {.queue_size = kVirtQueueSizeMax});
  const GuestAddress data = driver.allocate(16);
  VirtQueue queue(memory);
  ASSERT_TRUE(queue.configure(driver.layout(), 0));
  const std::array<DriverBuffer, 1> buffer{DriverBuffer::readable(data, 16)};
  for (uint32_t i = 0; i < kVirtQueueSizeMax; ++i) ASSERT_TRUE(driver.add(buffer).has_value());
  EXPECT_FALSE(driver.add(buffer).has_value());
  driver.publish();
  DescriptorChain chain;
  for (uint32_t i = 0; i < kVirtQueueSizeMax; ++i) {
    ASSERT_EQ(queue.pop(chain), VirtQueue::Pop::kChain);
    queue.push_used(chain.head(), i);
  }
  queue.publish_used();
  EXPECT_EQ(driver.collect_all().size(), kVirtQueueSizeMax);
}

// --- Memory of several regions ----------------------------------------------------------------

class VirtQueueRegionsTest : public ::testing::Test {
 protected:
  VirtQueueRegionsTest() { EXPECT_TRUE(queue_.configure(driver_.layout(), 0)); }

  // Two adjacent regions, a hole, and one more.
  FakeGuestMemory memory_{std::vector<FakeGuestMemory::Range>{
      {GuestAddress{0}, 0x4000}, {GuestAddress{0x4000}, 0x1000}, {GuestAddress{0x8000}, 0x1000}}};
  GuestDriver driver_{memory_, {.queue_size = 4}};
  VirtQueue queue_{memory_};
  DescriptorChain chain_;
};

TEST_F(VirtQueueRegionsTest, BufferAcrossAdjacentRegionsIsSplit) {
  driver_.offer({DriverBuffer::writable(GuestAddress{0x3f00}, 0x300)});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  ASSERT_EQ(chain_.writable().size(), 2u);
  EXPECT_EQ(chain_.writable()[0].iov_len, 0x100u);
  EXPECT_EQ(chain_.writable()[1].iov_len, 0x200u);
  EXPECT_EQ(chain_.writable()[1].iov_base, memory_.memory().regions()[1].host);
  EXPECT_EQ(chain_.writable_bytes(), 0x300u);
}

TEST_F(VirtQueueRegionsTest, BufferAcrossAHoleBreaksTheQueue) {
  driver_.offer({DriverBuffer::writable(GuestAddress{0x4f00}, 0x4000)});
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kBroken);
}

TEST_F(VirtQueueRegionsTest, BufferInTheHoleBreaksTheQueue) {
  driver_.offer({DriverBuffer::readable(GuestAddress{0x6000}, 1)});
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kBroken);
}

// Nobody touches the bytes, so a region may claim what is not there.
class VirtQueueHugeTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kClaimed = uint64_t{1} << 33;
  VirtQueueHugeTest()
      : huge_(std::vector<GuestRegion>{
            {.base = {0}, .host = ram_.memory().regions()[0].host, .size_bytes = kClaimed}}) {
    EXPECT_TRUE(queue_.configure(driver_.layout(), 0));
  }
  FakeGuestMemory ram_{16 * 1024};
  GuestMemory huge_;
  GuestDriver driver_{ram_, {.queue_size = 4}};
  VirtQueue queue_{huge_};
  DescriptorChain chain_;
};

TEST_F(VirtQueueHugeTest, ChainOfExactlyFourGigabytesIsTaken) {
  driver_.offer({DriverBuffer::readable(GuestAddress{0}, 0xffffffff),
                 DriverBuffer::writable(GuestAddress{0}, 1)});
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(chain_.readable_bytes() + chain_.writable_bytes(), uint64_t{1} << 32);
}

TEST_F(VirtQueueHugeTest, ChainOfMoreThanFourGigabytesBreaksTheQueue) {
  driver_.offer({DriverBuffer::readable(GuestAddress{0}, 0xffffffff),
                 DriverBuffer::writable(GuestAddress{0}, 2)});
  EXPECT_EQ(queue_.pop(chain_), VirtQueue::Pop::kBroken);
  EXPECT_THAT(std::string(queue_.broken_reason()), HasSubstr("2^32"));
}

// --- Notifications and interrupts --------------------------------------------------------------

TEST_F(VirtQueueTest, EventIdxAsksForAKickOnlyWhenRearmed) {
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kIdle);
  driver_.offer({DriverBuffer::readable(data_, 4)});
  EXPECT_TRUE(driver_.kick_wanted());
  driver_.offer({DriverBuffer::readable(data_, 4)});
  EXPECT_FALSE(driver_.kick_wanted());
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kMoreAvailable);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kMoreAvailable);
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kIdle);
  driver_.offer({DriverBuffer::readable(data_, 4)});
  EXPECT_TRUE(driver_.kick_wanted());
}

TEST_F(VirtQueueWithFlagsTest, FlagsSuppressKicksAndInterrupts) {
  queue_.disable_notifications();
  driver_.offer({DriverBuffer::readable(data_, 4)});
  EXPECT_FALSE(driver_.kick_wanted());
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kMoreAvailable);
  driver_.offer({DriverBuffer::readable(data_, 4)});
  EXPECT_TRUE(driver_.kick_wanted());

  driver_.disable_interrupts();
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  queue_.push_used(chain_.head(), 0);
  EXPECT_FALSE(queue_.publish_used());
  EXPECT_TRUE(driver_.enable_interrupts());  // There is something already.
  ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
  queue_.push_used(chain_.head(), 0);
  EXPECT_TRUE(queue_.publish_used());
}

TEST_F(VirtQueueTest, SuppressedQueueAsksForNoKickAndSeesWhatComes) {
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kIdle);
    queue_.suppress_notifications();
    EXPECT_FALSE(queue_.has_available());
    driver_.offer({DriverBuffer::readable(data_, 1)});
    EXPECT_FALSE(driver_.kick_wanted());
    EXPECT_TRUE(queue_.has_available());
    EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kMoreAvailable);
    ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
    EXPECT_FALSE(queue_.has_available());
    queue_.push_used(chain_.head(), 0);
    queue_.publish_used();
    driver_.collect_all();
  }
}

TEST_F(VirtQueueWithFlagsTest, SuppressedQueueAsksForNoKickEither) {
  queue_.suppress_notifications();
  driver_.offer({DriverBuffer::readable(data_, 1)});
  EXPECT_FALSE(driver_.kick_wanted());
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kMoreAvailable);
}

TEST_F(VirtQueueTest, OneInterruptForABatch) {
  for (int i = 0; i < 4; ++i) driver_.offer({DriverBuffer::readable(data_, 4)});
  driver_.set_used_event(2);  // Tell me when the third is done.
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain);
    queue_.push_used(chain_.head(), 0);
    if (i == 1) {
      EXPECT_FALSE(queue_.publish_used());
    }
  }
  EXPECT_TRUE(queue_.publish_used());
  EXPECT_FALSE(queue_.publish_used());
}

// Three times around the 16-bit indices, with the event asked for at every distance in turn.
TEST_F(VirtQueueTest, EventIdxIsExactAcrossTheWrapOfTheIndices) {
  queue_.enable_notifications();
  uint32_t wanted = 0;
  uint32_t interrupts = 0;
  uint32_t kicks = 0;
  uint16_t event = 0;
  for (uint32_t i = 0; i < 3 * 65536 + 100; ++i) {
    if (static_cast<uint16_t>(i - event) == 0) {
      driver_.set_used_event(event);
      ++wanted;
    }
    driver_.offer({DriverBuffer::readable(data_, 4)});
    kicks += driver_.kick_wanted() ? 1 : 0;
    ASSERT_EQ(queue_.pop(chain_), VirtQueue::Pop::kChain) << i;
    ASSERT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kIdle);
    queue_.push_used(chain_.head(), i);
    const bool interrupt = queue_.publish_used();
    ASSERT_EQ(interrupt, static_cast<uint16_t>(i) == event) << i;
    if (interrupt) {
      ++interrupts;
      event = static_cast<uint16_t>(event + 1 + i % 257);
    }
    const auto used = driver_.collect();
    ASSERT_TRUE(used.has_value());
    ASSERT_EQ(used->written_bytes, i);
  }
  EXPECT_EQ(interrupts, wanted);
  EXPECT_EQ(kicks, 3u * 65536 + 100);  // Each found the device asleep.
  EXPECT_EQ(driver_.free_descriptors(), 8);
}

TEST(EventWasPassedTest, CountsModuloTheSixteenBitsOfTheIndices) {
  EXPECT_TRUE(event_was_passed(0, 1, 0));
  EXPECT_FALSE(event_was_passed(1, 1, 0));
  EXPECT_TRUE(event_was_passed(0xffff, 0, 0xffff));
  EXPECT_TRUE(event_was_passed(0xffff, 5, 0xfffe));
  EXPECT_FALSE(event_was_passed(5, 5, 0xfffe));
  EXPECT_FALSE(event_was_passed(0xfffd, 5, 0xfffe));
  EXPECT_FALSE(event_was_passed(3, 3, 3));  // Nothing new: no event.
}

}  // namespace
}  // namespace skiff::devices
