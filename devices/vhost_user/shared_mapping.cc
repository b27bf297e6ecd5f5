// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/shared_mapping.h"

#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "devices/vhost_user/fault_guard.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint64_t kPageBytes = 4096;

}  // namespace

Result<SharedMapping> SharedMapping::map(int fd, uint64_t offset_bytes, uint64_t size_bytes) {
  struct stat facts = {};
  if (::fstat(fd, &facts) != 0) return Error::from_errno(errno, "Looking at shared memory");
  if (!S_ISREG(facts.st_mode))
    return Error(ErrorKind::kCorrupt, "Shared memory must be a memory file, or a regular one");
  const auto file_bytes = static_cast<uint64_t>(facts.st_size);
  if (size_bytes == 0 || offset_bytes > file_bytes || size_bytes > file_bytes - offset_bytes)
    return Error(ErrorKind::kCorrupt,
                 fmt::format("{} bytes at {} are not within a shared file of {} bytes", size_bytes,
                             offset_bytes, file_bytes));
  // Files on hugetlbfs are mapped in whole huge pages.
  const auto block_bytes = static_cast<uint64_t>(std::max<blksize_t>(facts.st_blksize, 1));
  const uint64_t unit =
      std::has_single_bit(block_bytes) ? std::max(block_bytes, kPageBytes) : kPageBytes;
  SharedMapping mapping;
  mapping.skip_bytes_ = offset_bytes % unit;
  mapping.size_bytes_ = size_bytes;
  mapping.mapped_bytes_ = (mapping.skip_bytes_ + size_bytes + unit - 1) / unit * unit;
  void* const start =
      ::mmap(nullptr, mapping.mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
             static_cast<off_t>(offset_bytes - mapping.skip_bytes_));
  if (start == MAP_FAILED)
    return Error::from_errno(
        errno, fmt::format("Mapping {} MiB of shared memory", mapping.mapped_bytes_ >> 20));
  mapping.start_ = static_cast<std::byte*>(start);
  // A helper process has no use for it.
  ::madvise(start, mapping.mapped_bytes_, MADV_DONTFORK);
  auto guard = FaultGuard::create({mapping.start_, mapping.mapped_bytes_});
  if (!guard) return guard.error();
  mapping.guard_ = *std::move(guard);
  return mapping;
}

SharedMapping::SharedMapping(SharedMapping&& other) noexcept
    : start_(std::exchange(other.start_, nullptr)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)),
      skip_bytes_(std::exchange(other.skip_bytes_, 0)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      guard_(std::move(other.guard_)) {}

SharedMapping& SharedMapping::operator=(SharedMapping&& other) noexcept {
  std::swap(start_, other.start_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(skip_bytes_, other.skip_bytes_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(guard_, other.guard_);
  return *this;
}

SharedMapping::~SharedMapping() {
  guard_ = FaultGuard();  // Before its addresses may be somebody else's.
  if (start_ != nullptr) ::munmap(start_, mapped_bytes_);
}

}  // namespace skiff::devices
