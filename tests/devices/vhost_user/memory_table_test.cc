// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/memory_table.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <limits>

#include "devices/core/guest_memory.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/shared_mapping.h"
#include "loop/memory_file.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::ErrorKind;
using loop::UniqueFd;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

UniqueFd make_file(uint64_t size_bytes) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size_bytes)), 0);
  return fd;
}

class MemoryTableTest : public ::testing::Test {
 protected:
  MemoryTable table_;
  UniqueFd file_ = make_file(16 * kPage);
};

TEST_F(MemoryTableTest, RegionIsFoundByGuestAndByUserAddress) {
  ASSERT_TRUE(table_.add({.guest_address = 8 * kPage,
                          .size_bytes = 4 * kPage,
                          .user_address = 0x7000'0000,
                          .file_offset = 2 * kPage},
                         file_.get()));
  const auto address = table_.guest_address(0x7000'0000 + 5000);
  ASSERT_TRUE(address);
  EXPECT_EQ(address->value, 8 * kPage + 5000);
  EXPECT_FALSE(table_.guest_address(0x7000'0000 + 4 * kPage));
  EXPECT_FALSE(table_.guest_address(0x6fff'ffff));

  ASSERT_TRUE(table_.guest().store(*address, uint32_t{0x1234'5678}));
  uint32_t in_file = 0;
  ASSERT_EQ(::pread(file_.get(), &in_file, 4, 2 * kPage + 5000), 4);
  EXPECT_EQ(in_file, 0x1234'5678u);
  EXPECT_FALSE(table_.guest().translate({8 * kPage}, 4 * kPage + 1));
}

TEST_F(MemoryTableTest, RegionsAreSortedWhateverTheirOrder) {
  ASSERT_TRUE(table_.add({0x10'0000, kPage, 0x7000'0000, 0}, file_.get()));
  ASSERT_TRUE(table_.add({0, kPage, 0x6000'0000, kPage}, file_.get()));
  ASSERT_EQ(table_.guest().regions().size(), 2u);
  EXPECT_EQ(table_.guest().regions()[0].base.value, 0u);
  ASSERT_TRUE(
      table_.remove({.guest_address = 0, .size_bytes = kPage, .user_address = 0x6000'0000}));
  ASSERT_EQ(table_.guest().regions().size(), 1u);
  EXPECT_EQ(table_.guest().regions()[0].base.value, 0x10'0000u);
  EXPECT_EQ(table_.remove({.guest_address = 0x10'0000, .size_bytes = kPage}).error().kind(),
            ErrorKind::kNotFound);
}

TEST_F(MemoryTableTest, RegionsThatWrapOrLeaveTheirFileAreRefused) {
  const VhostMemoryRegion bad[] = {
      {.guest_address = kMax - kPage + 1, .size_bytes = 2 * kPage},
      {.size_bytes = 2 * kPage, .user_address = kMax - kPage + 1},
      {.size_bytes = kPage, .file_offset = kMax - kPage + 1},
      {.size_bytes = 0},
      {.size_bytes = 17 * kPage},
      {.size_bytes = 15 * kPage, .file_offset = 2 * kPage},
      {.size_bytes = kPage, .file_offset = 16 * kPage},
      {.size_bytes = kMax & ~(kPage - 1)},
      {.guest_address = 1, .size_bytes = kPage},
      {.size_bytes = kPage, .user_address = 8},
      {.size_bytes = kPage, .file_offset = 512},
  };
  for (const VhostMemoryRegion& region : bad) {
    const auto added = table_.add(region, file_.get());
    ASSERT_FALSE(added) << region.size_bytes;
    EXPECT_EQ(added.error().kind(), ErrorKind::kCorrupt) << added.error().message();
  }
  EXPECT_EQ(table_.region_count(), 0u);
}

TEST_F(MemoryTableTest, OverlapsAreRefused) {
  ASSERT_TRUE(table_.add({0x10000, 4 * kPage, 0x7000'0000, 0}, file_.get()));
  EXPECT_FALSE(table_.add({0x13000, kPage, 0x8000'0000, 0}, file_.get()));
  EXPECT_FALSE(table_.add({0x20000, kPage, 0x7000'3000, 0}, file_.get()));
  EXPECT_TRUE(table_.add({0x14000, kPage, 0x7000'4000, 0}, file_.get()));
}

TEST_F(MemoryTableTest, WhatIsNoFileIsRefused) {
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC));
  EXPECT_FALSE(table_.add({.size_bytes = kPage}, event.get()));
  EXPECT_FALSE(table_.add({.size_bytes = kPage}, -1));
}

TEST_F(MemoryTableTest, MoreRegionsThanThereIsRoomForAreRefused) {
  for (uint64_t i = 0; i < MemoryTable::kRegionsMax; ++i)
    ASSERT_TRUE(table_.add({i * kPage, kPage, i * kPage, 0}, file_.get()));
  const auto added = table_.add(
      {MemoryTable::kRegionsMax * kPage, kPage, MemoryTable::kRegionsMax * kPage, 0}, file_.get());
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().kind(), ErrorKind::kExhausted);
}

TEST_F(MemoryTableTest, FileThatIsCutShortReadsAsZeroesAndDoesNotKill) {
  ASSERT_TRUE(table_.add({.size_bytes = 16 * kPage}, file_.get()));
  ASSERT_TRUE(table_.guest().store(GuestAddress{8 * kPage}, uint64_t{1}));
  EXPECT_FALSE(table_.has_faulted());
  ASSERT_EQ(::ftruncate(file_.get(), kPage), 0);
  EXPECT_EQ(table_.guest().load<uint64_t>(GuestAddress{8 * kPage}), 0u);
  EXPECT_TRUE(table_.has_faulted());
  EXPECT_TRUE(table_.guest().store(GuestAddress{0}, uint64_t{1}));
  table_.clear();
  EXPECT_FALSE(table_.has_faulted());
}

TEST(SharedMapping, PartOfAPageIsMappedAtItsPlace) {
  const UniqueFd file = make_file(2 * kPage);
  auto mapping = SharedMapping::map(file.get(), 64, 128);
  ASSERT_TRUE(mapping);
  ASSERT_EQ(mapping->bytes().size(), 128u);
  mapping->bytes()[0] = std::byte{0x5a};
  uint8_t byte = 0;
  ASSERT_EQ(::pread(file.get(), &byte, 1, 64), 1);
  EXPECT_EQ(byte, 0x5a);
  EXPECT_FALSE(SharedMapping::map(file.get(), 64, 2 * kPage));
}

TEST(SharedMapping, SealedMemoryCannotBeCutShort) {
  const auto file = loop::create_sealed_memory("test", kPage);
  ASSERT_TRUE(file);
  EXPECT_NE(::ftruncate(file->get(), 0), 0);
}

}  // namespace
}  // namespace skiff::devices
