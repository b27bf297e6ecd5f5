// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/iovec_copy.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace skiff::block {
namespace {

// Calls copy(segment bytes, offset in the plain bytes, length) for what overlaps.
template <typename Copy>
size_t for_overlap(std::span<const iovec> iov, uint64_t skip_bytes, size_t size_bytes, Copy copy) {
  size_t copied = 0;
  for (const iovec& segment : iov) {
    if (copied == size_bytes) break;
    if (skip_bytes >= segment.iov_len) {
      skip_bytes -= segment.iov_len;
      continue;
    }
    const size_t length = std::min<size_t>(segment.iov_len - skip_bytes, size_bytes - copied);
    copy(static_cast<std::byte*>(segment.iov_base) + skip_bytes, copied, length);
    skip_bytes = 0;
    copied += length;
  }
  return copied;
}

}  // namespace

size_t copy_to_iovec(std::span<const iovec> iov, uint64_t skip_bytes,
                     std::span<const std::byte> from) {
  return for_overlap(iov, skip_bytes, from.size(),
                     [&](std::byte* at, size_t offset, size_t length) {
                       std::memcpy(at, from.data() + offset, length);
                     });
}

size_t copy_from_iovec(std::span<const iovec> iov, uint64_t skip_bytes, std::span<std::byte> into) {
  return for_overlap(iov, skip_bytes, into.size(),
                     [&](std::byte* at, size_t offset, size_t length) {
                       std::memcpy(into.data() + offset, at, length);
                     });
}

}  // namespace skiff::block
