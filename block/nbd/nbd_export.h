// SPDX-License-Identifier: GPL-2.0-or-later
// NbdExport: what a server said of the disk that it serves, once that was found believable.
//
// Thread: any; a value. Source: the NBD protocol (doc/proto.md of the NBD project), "Transmission
// flags" and "Block size constraints".
#pragma once

#include <cstdint>

#include "block/block_limits.h"
#include "block/nbd/nbd_handle.h"
#include "loop/result.h"

namespace skiff::block {

struct NbdExport {
  uint64_t size_bytes = 0;  // Whole sectors of it.
  bool read_only = false;
  bool flush = false;
  bool fua = false;
  bool trim = false;
  bool zero = false;
  bool fast_zero = false;
  bool multi_conn = false;
  bool allocation = false;  // Answers block status ("base:allocation").
  uint32_t preferred_block_bytes = 512;
  uint64_t transfer_bytes_max = 0;  // Of one read or write.

  // Of a handle that has negotiated. kCorrupt for a size of nothing or beyond 2^63, kUnsupported
  // for blocks above 512 bytes.
  static loop::Result<NbdExport> learn(nbd_handle* handle);
  // Can this export, met after a reconnect, go on where `promised` was left? kCorrupt says why not.
  loop::Result<void> can_stand_in_for(const NbdExport& promised) const;
  BlockLimits limits() const;
};

}  // namespace skiff::block
