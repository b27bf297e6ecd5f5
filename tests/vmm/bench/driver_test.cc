// SPDX-License-Identifier: GPL-2.0-or-later
// The driver code of the payload guest and of `skiff bench queues`, against the device's side of
// the queue and a disk in memory. Time is what the test says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/virtio/virt_queue.h"
#include "devices/virtio/virtio_device.h"
#include "loop/latency_histogram.h"
#include "vmm/bench/driver/blk_job.h"
#include "vmm/bench/driver/blk_table.h"
#include "vmm/bench/driver/disk_pattern.h"
#include "vmm/bench/driver/driver_histogram.h"
#include "vmm/bench/driver/driver_memory.h"
#include "vmm/bench/driver/driver_ring.h"
#include "vmm/bench/driver/tick_scale.h"

namespace skiff::vmm {
namespace {

using devices::DescriptorChain;
using devices::VirtQueue;

constexpr uint64_t kMemoryBytes = uint64_t{4} << 20;
constexpr uint32_t kBlockBytes = 4096;
constexpr uint64_t kBlocks = 64;
// A tick is a nanosecond.
constexpr uint64_t kKhz = 1'000'000;

class DriverTest : public ::testing::Test {
 protected:
  BlkJob::Options options() const {
    BlkJob::Options options;
    options.table = {.queue_size = 64, .depth = 4, .block_bytes = kBlockBytes};
    options.block_count = kBlocks;
    options.scale = TickScale(kKhz);
    return options;
  }
  void make(const BlkJob::Options& options, BlkJob::Span span = {.until = 1'000'000}) {
    std::memset(bytes_at(0), 0, kMemoryBytes);
    DriverMemory memory(bytes_at(0), 0, kMemoryBytes);
    job_ = std::make_unique<BlkJob>();
    ASSERT_TRUE(job_->place(memory, options));
    EXPECT_LE(memory.used_bytes(), BlkTable::bytes_needed(options.table));
    devices::QueueLayout layout;
    layout.size = options.table.queue_size;
    layout.descriptors = {job_->places().descriptors};
    layout.available = {job_->places().available};
    layout.used = {job_->places().used};
    uint64_t features = devices::kVirtioVersion1;
    if (options.table.event_idx) features |= devices::kVirtioRingEventIdx;
    if (options.table.indirect) features |= devices::kVirtioRingIndirectDesc;
    ASSERT_TRUE(queue_.configure(layout, features));
    job_->start(span);
  }
  BlkJob::Turn turn(uint64_t now) {
    job_->look();
    return job_->turn(now);
  }

  // The device: everything that is available, or `most` of it. True when it would interrupt.
  bool serve(size_t most = 1000, uint8_t status = 0) {
    DescriptorChain chain;
    for (size_t i = 0; i < most && queue_.pop(chain) == VirtQueue::Pop::kChain; ++i) {
      uint32_t type = 0;
      uint64_t sector = 0;
      std::memcpy(&type, chain.readable()[0].iov_base, sizeof(type));
      std::memcpy(&sector, static_cast<char*>(chain.readable()[0].iov_base) + 8, sizeof(sector));
      const bool reads = type == 0;
      const iovec data = reads ? chain.writable()[0] : chain.readable()[1];
      std::byte* at = disk_.data() + sector * kBlkSectorBytes;
      if (sector * kBlkSectorBytes + data.iov_len > disk_.size()) {
        ADD_FAILURE() << "sector " << sector << " is behind the disk's end";
        return false;
      }
      if (reads)
        std::memcpy(data.iov_base, at, data.iov_len);
      else
        std::memcpy(at, data.iov_base, data.iov_len);
      std::memcpy(chain.writable().back().iov_base, &status, 1);
      queue_.push_used(chain.head(), reads ? kBlockBytes + 1 : 1);
      sectors_.push_back(sector);
    }
    EXPECT_FALSE(queue_.is_broken()) << queue_.broken_reason();
    return queue_.publish_used();
  }
  std::byte* bytes_at(uint64_t address) const {
    return memory_.memory().translate({address}, 1)->data();
  }

  devices::FakeGuestMemory memory_{kMemoryBytes};
  VirtQueue queue_{memory_.memory()};
  std::unique_ptr<BlkJob> job_;
  std::vector<std::byte> disk_ = std::vector<std::byte>(kBlocks * kBlockBytes);
  std::vector<uint64_t> sectors_;  // In the order that the device served them.
};

TEST_F(DriverTest, ClosedLoadKeepsItsDepthUnderWay) {
  make(options());
  EXPECT_EQ(turn(0).sent, 4u);
  EXPECT_EQ(turn(1).sent, 0u);
  serve(1);
  const BlkJob::Turn next = turn(100);
  EXPECT_EQ(next.taken, 1u);
  EXPECT_EQ(next.sent, 1u);
  EXPECT_EQ(job_->in_flight(), 4u);
  EXPECT_EQ(job_->record().latency.max_ns(), 100u);
}

TEST_F(DriverTest, WritesLeaveThePatternThatReadsFind) {
  BlkJob::Options writing = options();
  writing.random = false;
  writing.write_percent = 100;
  writing.verify = true;
  make(writing);
  for (uint64_t now = 0; sectors_.size() < kBlocks; ++now) {
    turn(now);
    serve();
  }
  EXPECT_TRUE(is_pattern(disk_.data(), disk_.size(), 0));
  EXPECT_EQ(job_->record().failure, BlkJob::Failure::kNone);
  queue_.release();
  BlkJob::Options reading = options();
  reading.verify = true;
  make(reading, {.until = 200});
  for (uint64_t now = 0; !job_->has_ended(); ++now) {
    turn(now);
    serve();
  }
  EXPECT_EQ(job_->record().failure, BlkJob::Failure::kNone);
  EXPECT_GE(job_->record().reads, 400u);
}

TEST_F(DriverTest, OtherDataThanThePatternEndsTheJob) {
  fill_pattern(disk_.data(), disk_.size(), 0);
  disk_[9 * kBlockBytes + 100] ^= std::byte{1};
  BlkJob::Options reading = options();
  reading.random = false;
  reading.verify = true;
  make(reading);
  for (uint64_t now = 0; !job_->has_ended(); ++now) {
    turn(now);
    serve();
  }
  EXPECT_EQ(job_->record().failure, BlkJob::Failure::kData);
  EXPECT_EQ(job_->record().failed_sector, 9u * kBlockBytes / kBlkSectorBytes);
}

TEST_F(DriverTest, AFailedRequestEndsTheJobWhenAllAreBack) {
  make(options());
  turn(0);
  serve(1, 1);
  turn(1);
  EXPECT_FALSE(job_->has_ended());
  EXPECT_EQ(job_->record().failure, BlkJob::Failure::kStatus);
  serve();
  turn(2);
  EXPECT_TRUE(job_->has_ended());
}

TEST_F(DriverTest, SequenceWrapsAtTheEndOfTheDisk) {
  BlkJob::Options reading = options();
  reading.random = false;
  reading.first_block = kBlocks - 2;
  make(reading);
  turn(0);
  serve();
  constexpr uint64_t kEach = kBlockBytes / kBlkSectorBytes;
  EXPECT_EQ(sectors_,
            (std::vector<uint64_t>{(kBlocks - 2) * kEach, (kBlocks - 1) * kEach, 0, kEach}));
}

TEST_F(DriverTest, RandomBlocksReachAllOfTheDiskAndNothingElse) {
  make(options());
  std::vector<bool> seen(kBlocks);
  for (uint64_t now = 0; now < 1000; ++now) {
    turn(now);
    serve();
  }
  for (const uint64_t sector : sectors_) seen.at(sector * kBlkSectorBytes / kBlockBytes) = true;
  EXPECT_EQ(std::ranges::count(seen, true), static_cast<long>(kBlocks));
}

// A device that stalls is charged for all requests that were due meanwhile.
TEST_F(DriverTest, AtARateLatencyCountsFromWhenARequestWasDue) {
  BlkJob::Options rated = options();
  rated.table.depth = 2;
  rated.rate = 1'000'000;  // One each 1,000 ticks.
  make(rated, {.until = 10'000});
  EXPECT_EQ(turn(0).sent, 1u);
  EXPECT_EQ(job_->next_tick(), 1000u);
  EXPECT_EQ(turn(999).sent, 0u);
  EXPECT_EQ(turn(1000).sent, 1u);
  EXPECT_EQ(job_->next_tick(), kNeverTick);  // No slot is free: the device is waited for.
  EXPECT_EQ(turn(5000).sent, 0u);
  serve();
  EXPECT_EQ(turn(5000).sent, 2u);  // Those of 2000 and 3000.
  serve();
  turn(5500);
  EXPECT_EQ(job_->record().latency.max_ns(), 5000u);
  EXPECT_EQ(job_->record().latency.sum_ns(), 5000u + 4000u + 3500u + 2500u);
  for (uint64_t now = 6000; !job_->has_ended(); now += 500) {
    turn(now);
    serve();
  }
  EXPECT_EQ(job_->behind_ticks(), 0u);
  EXPECT_EQ(job_->record().reads, 10u);
}

TEST_F(DriverTest, AJobThatIsTooSlowSaysHowFarItIsBehind) {
  BlkJob::Options rated = options();
  rated.table.depth = 1;
  rated.rate = 1'000'000;
  make(rated, {.until = 10'000});
  turn(0);
  turn(10'000);
  serve();
  turn(10'001);
  EXPECT_TRUE(job_->has_ended());
  EXPECT_EQ(job_->behind_ticks(), 9000u);
}

TEST_F(DriverTest, WhatStartsInTheWarmUpIsNotMeasured) {
  make(options(), {.measure_from = 100, .until = 200});
  for (uint64_t now = 0; !job_->has_ended(); now += 50) {
    turn(now);
    serve();
  }
  EXPECT_EQ(job_->record().requests, 16u);
  EXPECT_EQ(job_->record().reads, 8u);
}

TEST_F(DriverTest, KicksOnlyWhenTheDeviceWantsThem) {
  make(options());
  EXPECT_TRUE(turn(0).kick);  // A device that has said nothing wants the first one.
  serve(1);
  EXPECT_FALSE(turn(1).kick);
  serve();
  EXPECT_EQ(queue_.enable_notifications(), VirtQueue::Rearm::kIdle);
  EXPECT_TRUE(turn(2).kick);
}

TEST_F(DriverTest, InterruptsComeOnlyWhenAskedFor) {
  make(options());
  turn(0);
  EXPECT_FALSE(serve(1));
  EXPECT_TRUE(job_->enable_interrupts());  // There is news already.
  turn(1);
  EXPECT_FALSE(job_->enable_interrupts());
  EXPECT_TRUE(serve(1));
}

TEST_F(DriverTest, IndirectRequestsTakeOneDescriptorEach) {
  BlkJob::Options indirect = options();
  indirect.table.queue_size = 4;
  indirect.table.indirect = true;
  indirect.verify = true;
  fill_pattern(disk_.data(), disk_.size(), 0);
  make(indirect, {.until = 100});
  EXPECT_EQ(turn(0).sent, 4u);
  for (uint64_t now = 1; !job_->has_ended(); ++now) {
    serve();
    turn(now);
  }
  EXPECT_EQ(job_->record().failure, BlkJob::Failure::kNone);
  EXPECT_EQ(job_->record().requests, 400u);
}

TEST_F(DriverTest, WithoutEventIndicesFlagsDoTheSame) {
  BlkJob::Options flags = options();
  flags.table.event_idx = false;
  make(flags);
  queue_.disable_notifications();
  EXPECT_FALSE(turn(0).kick);
  EXPECT_FALSE(serve(1));
  turn(1);
  EXPECT_FALSE(job_->enable_interrupts());
  EXPECT_TRUE(serve(1));
}

TEST_F(DriverTest, IndicesMayWrap) {
  make(options(), {.until = ~uint64_t{0} - 1});
  for (uint64_t now = 0; job_->record().requests < 70'000; ++now) {
    turn(now);
    if (serve() && !job_->look()) FAIL() << "an interrupt without news";
  }
  EXPECT_EQ(job_->record().failure, BlkJob::Failure::kNone);
}

TEST_F(DriverTest, ARequestThatWasNeverSentIsNotBelieved) {
  make(options());
  turn(0);
  std::byte* used = bytes_at(job_->places().used);
  const uint32_t head = 7;  // In the middle of a chain.
  const uint16_t index = 1;
  std::memcpy(used + 4, &head, sizeof(head));
  std::memcpy(used + 2, &index, sizeof(index));
  turn(1);
  EXPECT_EQ(job_->record().failure, BlkJob::Failure::kHead);
  EXPECT_TRUE(job_->has_ended());
}

TEST(BlkTable, MoreThanFitsIsRefused) {
  devices::FakeGuestMemory memory(kMemoryBytes);
  std::byte* bytes = memory.memory().translate({0}, kMemoryBytes)->data();
  const auto placed = [&](const BlkTable::Options& options, uint64_t size_bytes) {
    DriverMemory driver_memory(bytes, 0, size_bytes);
    return BlkTable().place(driver_memory, options);
  };
  EXPECT_TRUE(placed({.queue_size = 64, .depth = 21}, kMemoryBytes));
  EXPECT_FALSE(placed({.queue_size = 64, .depth = 22}, kMemoryBytes));
  EXPECT_TRUE(placed({.queue_size = 64, .depth = 64, .indirect = true}, kMemoryBytes));
  EXPECT_FALSE(placed({.queue_size = 64, .depth = 21}, 64 * 1024));
}

TEST(DriverHistogram, HasTheBucketsOfLatencyHistogram) {
  for (uint64_t ns = 1; ns < uint64_t{1} << 41; ns = ns * 21 / 20 + 1) {
    loop::LatencyHistogram one;
    one.record(static_cast<int64_t>(ns));
    one.record(int64_t{1} << 41);  // So that the percentile is the bucket's end, not the maximum.
    EXPECT_EQ(static_cast<uint64_t>(one.percentile_ns(50)),
              DriverHistogram::highest_in(DriverHistogram::bucket_of(ns)))
        << ns;
  }
  EXPECT_LT(DriverHistogram::bucket_of(~uint64_t{0}), DriverHistogram::kBuckets);
}

TEST(DriverHistogram, MergesCountsSumsAndMaxima) {
  DriverHistogram one;
  DriverHistogram other;
  one.record(10);
  other.record(1'000'000);
  other.record(10);
  one.merge(other);
  EXPECT_EQ(one.count(), 3u);
  EXPECT_EQ(one.sum_ns(), 1'000'020u);
  EXPECT_EQ(one.max_ns(), 1'000'000u);
  EXPECT_EQ(one.count_in(10), 2u);
}

TEST(TickScale, ConvertsThereAndBack) {
  const TickScale scale(2'596'094);
  EXPECT_EQ(scale.ticks_per_second(), 2'596'094'000u);
  EXPECT_NEAR(static_cast<double>(scale.to_ns(2'596'094'000)), 1e9, 2);
  EXPECT_NEAR(static_cast<double>(scale.to_ticks(1'000'000'000)), 2'596'094'000.0, 2);
}

}  // namespace
}  // namespace skiff::vmm
