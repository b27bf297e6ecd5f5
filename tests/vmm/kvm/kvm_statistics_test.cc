// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/kvm_statistics.h"

#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::vmm {
namespace {

// The layout of a statistics file: header, two descriptors with names of 16 bytes, then the values.
struct StatisticsFile {
  kvm_stats_header header{};
  struct Descriptor {
    uint32_t flags = 0;
    int16_t exponent = 0;
    uint16_t size = 1;
    uint32_t offset = 0;
    uint32_t bucket_size = 0;
    char name[16] = {};
  } descriptors[2];
  uint64_t values[4] = {41, 42, 43, 44};
};
static_assert(sizeof(StatisticsFile::Descriptor) == 32);

StatisticsFile good_file() {
  StatisticsFile file;
  file.header = {.name_size = 16,
                 .num_desc = 2,
                 .id_offset = 0,
                 .desc_offset = offsetof(StatisticsFile, descriptors),
                 .data_offset = offsetof(StatisticsFile, values)};
  std::strcpy(file.descriptors[0].name, "exits");
  std::strcpy(file.descriptors[1].name, "halt_wait_hist");
  file.descriptors[1].size = 3;
  file.descriptors[1].offset = 8;
  return file;
}

loop::UniqueFd file_with(const void* bytes, size_t size) {
  loop::UniqueFd fd(::memfd_create("statistics", MFD_CLOEXEC));
  EXPECT_EQ(::write(fd.get(), bytes, size), static_cast<ssize_t>(size));
  return fd;
}

TEST(KvmStatistics, CountersAreReadAndHistogramsLeftOut) {
  const StatisticsFile file = good_file();
  const auto fd = file_with(&file, sizeof(file));
  const auto statistics = read_kvm_statistics(fd.get());
  ASSERT_TRUE(statistics) << statistics.error().message();
  ASSERT_EQ(statistics->size(), 1u);
  EXPECT_EQ((*statistics)[0].name, "exits");
  EXPECT_EQ((*statistics)[0].value, 41u);
}

TEST(KvmStatistics, FileThatEndsTooEarlyIsCorrupt) {
  const StatisticsFile file = good_file();
  const auto fd = file_with(&file, offsetof(StatisticsFile, values));
  const auto statistics = read_kvm_statistics(fd.get());
  ASSERT_FALSE(statistics);
  EXPECT_EQ(statistics.error().kind(), loop::ErrorKind::kCorrupt);
}

TEST(KvmStatistics, AbsurdSizeIsCorruptAndAllocatesNothing) {
  StatisticsFile file = good_file();
  file.header.num_desc = 0xffff'ffff;
  const auto fd = file_with(&file, sizeof(file));
  const auto statistics = read_kvm_statistics(fd.get());
  ASSERT_FALSE(statistics);
  EXPECT_EQ(statistics.error().kind(), loop::ErrorKind::kCorrupt);
}

}  // namespace
}  // namespace skiff::vmm
