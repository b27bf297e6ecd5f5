// SPDX-License-Identifier: GPL-2.0-or-later
// Copies between plain bytes and scattered ones.
//
// Thread: any; no state.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace skiff::block {

// Both start `skip_bytes` into `iov` and return how many bytes they copied: fewer than asked for
// when `iov` ends first.
size_t copy_to_iovec(std::span<const iovec> iov, uint64_t skip_bytes,
                     std::span<const std::byte> from);
size_t copy_from_iovec(std::span<const iovec> iov, uint64_t skip_bytes, std::span<std::byte> into);

}  // namespace skiff::block
