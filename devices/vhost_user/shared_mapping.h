// SPDX-License-Identifier: GPL-2.0-or-later
// SharedMapping: a part of a file, mapped for reading and writing together with the process that it
// came from.
//
// Thread: any. Ownership: owns the mapping, not the descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/vhost_user/fault_guard.h"
#include "loop/result.h"

namespace skiff::devices {

class SharedMapping {
 public:
  SharedMapping() = default;
  // kCorrupt when the range wraps, is empty or leaves the file, or when it is no regular file (a
  // memfd, a file on tmpfs or hugetlbfs). The peer may cut the file short later: see FaultGuard.
  static loop::Result<SharedMapping> map(int fd, uint64_t offset_bytes, uint64_t size_bytes);
  SharedMapping(SharedMapping&& other) noexcept;
  SharedMapping& operator=(SharedMapping&& other) noexcept;
  ~SharedMapping();

  std::span<std::byte> bytes() const { return {start_ + skip_bytes_, size_bytes_}; }
  bool has_faulted() const { return guard_.has_faulted(); }

 private:
  std::byte* start_ = nullptr;
  uint64_t mapped_bytes_ = 0;  // From start_: whole pages of the file.
  uint64_t skip_bytes_ = 0;
  uint64_t size_bytes_ = 0;
  FaultGuard guard_;
};

}  // namespace skiff::devices
