// SPDX-License-Identifier: GPL-2.0-or-later
// Probe: a BlockRequest that remembers how it ended.
//
// Thread: its channel's. Ownership: stays in place until it has ended.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block/block_channel.h"

namespace skiff::block {

struct Probe {
  Probe() {
    request.owner = this;
    request.done = [](BlockRequest& done, int32_t outcome) {
      auto& self = *static_cast<Probe*>(done.owner);
      ++self.completions;
      self.result = outcome;
    };
  }
  Probe(BlockOp op, uint64_t offset_bytes, uint64_t length_bytes) : Probe() {
    request.op = op;
    request.offset_bytes = offset_bytes;
    request.length_bytes = length_bytes;
  }
  Probe(BlockOp op, uint64_t offset_bytes, std::span<std::byte> bytes)
      : Probe(op, offset_bytes, bytes.size()) {
    iov = {iovec{bytes.data(), bytes.size()}};
    request.iov = iov;
  }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  BlockRequest request;
  std::vector<iovec> iov;
  uint32_t completions = 0;
  int32_t result = 1;
};

}  // namespace skiff::block
