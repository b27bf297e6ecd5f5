// SPDX-License-Identifier: GPL-2.0-or-later
// ZeroFill: writes zeroes out where neither file system nor device can do it by themselves.
//
// One write after the other, all from the same zeroes. This path allocates. Thread: the channel's
// loop. Ownership: owns itself from start() until the request is finished.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "block/block_channel.h"

namespace skiff::block {

class RawChannel;

class ZeroFill {
 public:
  // `request` is a kWriteZeroes in range and not empty.
  static void start(RawChannel& channel, BlockRequest& request);

 private:
  ZeroFill(RawChannel& channel, BlockRequest& request);
  static void on_part_done(BlockRequest& part, int32_t result);
  void next_part();

  static constexpr size_t kSegments = 16;  // Of 64 KiB: 1 MiB a write.

  RawChannel& channel_;
  BlockRequest& request_;
  uint64_t done_bytes_ = 0;
  std::array<iovec, kSegments> iov_ = {};
  BlockRequest part_;
};

}  // namespace skiff::block
