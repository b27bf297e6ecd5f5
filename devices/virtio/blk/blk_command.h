// SPDX-License-Identifier: GPL-2.0-or-later
// BlkCommand: what a guest asked for in one virtio-blk request (virtio 1.2, 5.2.6).
//
// The header and the segments of discard and write-zeroes are copied once, then checked; they may
// be split over descriptors anyhow (2.7.4). Thread: any. Ownership: borrows the chain's iovecs.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block/block_channel.h"

namespace skiff::devices {

inline constexpr uint64_t kSectorBytes = 512;  // Of the protocol, whatever blk_size says.
inline constexpr size_t kBlkIdBytes = 20;

// Status bytes (virtio 1.2, 5.2.6).
enum class BlkStatus : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };

// From a channel's result, 0 or -errno: the one place where that is done.
BlkStatus blk_status(int32_t result);

struct BlkCommand {
  enum class Kind : uint8_t {
    kIo,         // `op` on [offset, offset + length), `data` for reads and writes.
    kGetId,      // The serial number into `data`.
    kFail,       // Answer `failure`.
    kMalformed,  // Not even a place for an answer: the driver is broken.
  };
  Kind kind = Kind::kFail;
  BlkStatus failure = BlkStatus::kIoError;
  block::BlockOp op = block::BlockOp::kRead;
  bool may_unmap = false;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  std::span<const iovec> data = {};
  std::byte* status = nullptr;  // The last byte that the device may write.
};

// What the driver agreed to.
struct BlkRules {
  bool discard = false;
  bool write_zeroes = false;
  bool may_unmap = false;  // As config's write_zeroes_may_unmap says.
  uint64_t capacity_bytes = 0;
};

// `scratch` holds the data's iovecs where the chain's own do not fit; it lives as long as the
// command and is reused, so that nothing is allocated once it has grown.
BlkCommand parse_blk_command(std::span<const iovec> readable, std::span<const iovec> writable,
                             const BlkRules& rules, std::vector<iovec>& scratch);

}  // namespace skiff::devices
