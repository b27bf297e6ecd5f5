// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/kvm/kvm_statistics.h"

#include <linux/kvm.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "loop/result.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// kvm_stats_desc without the name at its end, for which the header's own declaration is too long in
// C++.
struct Descriptor {
  uint32_t flags;
  int16_t exponent;
  uint16_t size;
  uint32_t offset;
  uint32_t bucket_size;
};
static_assert(sizeof(Descriptor) == 16);

constexpr uint32_t kMostStatistics = 4096;
constexpr uint32_t kLongestName = 256;

Result<void> read_at(int fd, std::span<std::byte> into, uint64_t offset) {
  const ssize_t got = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
  if (got < 0) return Error::from_errno(errno, "Reading KVM's statistics");
  if (static_cast<size_t>(got) != into.size())
    return Error(ErrorKind::kCorrupt, "KVM's statistics end too early");
  return {};
}

}  // namespace

Result<std::vector<KvmStatistic>> read_kvm_statistics(int fd) {
  kvm_stats_header header{};
  SKIFF_RETURN_IF_ERROR(read_at(fd, std::as_writable_bytes(std::span(&header, 1)), 0));
  if (header.num_desc > kMostStatistics || header.name_size > kLongestName)
    return Error(ErrorKind::kCorrupt, "KVM's statistics have an absurd size");
  const size_t step = sizeof(Descriptor) + header.name_size;
  std::vector<std::byte> descriptors(step * header.num_desc);
  SKIFF_RETURN_IF_ERROR(read_at(fd, descriptors, header.desc_offset));

  std::vector<KvmStatistic> result;
  for (uint32_t i = 0; i < header.num_desc; ++i) {
    Descriptor descriptor{};
    const std::byte* const at = descriptors.data() + step * i;
    std::memcpy(&descriptor, at, sizeof(descriptor));
    if (descriptor.size != 1) continue;
    KvmStatistic statistic;
    const char* const name = reinterpret_cast<const char*>(at + sizeof(descriptor));
    statistic.name.assign(name, ::strnlen(name, header.name_size));
    SKIFF_RETURN_IF_ERROR(read_at(fd, std::as_writable_bytes(std::span(&statistic.value, 1)),
                                  uint64_t{header.data_offset} + descriptor.offset));
    result.push_back(std::move(statistic));
  }
  return result;
}

}  // namespace skiff::vmm
