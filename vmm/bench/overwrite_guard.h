// SPDX-License-Identifier: GPL-2.0-or-later
// Keeps a benchmark that writes from writing over somebody's data, and one that reads from taking
// holes for a fast disk.
//
// Thread: the functions on any, they block; StatusWalk on the channel's home loop.
// Ownership: StatusWalk borrows the channel, which outlives it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "block/block_channel.h"
#include "loop/result.h"

namespace skiff::vmm {

// Fails with kInvalidArgument, saying what to do, when the regular file holds data (whatever is not
// a hole or preallocated room) in its first `size_bytes` (0: anywhere), and for each block device,
// as nobody can tell what is on it.
loop::Result<void> may_overwrite_file(const std::string& path, uint64_t size_bytes);

// True for a regular file with room in its first `size_bytes` (0: anywhere) that was never written:
// reads of it do not reach the disk.
bool has_holes(const std::string& path, uint64_t size_bytes);

// Asks an image block by block whether it holds data; for what is no file.
class StatusWalk {
 public:
  enum class Finding : uint8_t { kEmpty, kData, kUnknown };

  // `on_end` runs on the loop.
  StatusWalk(block::BlockChannel& channel, uint64_t size_bytes,
             std::function<void(Finding)> on_end);
  void start() { ask(); }

 private:
  static void on_done(block::BlockRequest& request, int32_t result);
  void ask();

  block::BlockChannel& channel_;
  const uint64_t size_bytes_;
  uint64_t offset_bytes_ = 0;
  std::function<void(Finding)> on_end_;
  block::BlockRequest request_;
};
// The message for what is not kEmpty.
loop::Error overwrite_refusal(const std::string& name, StatusWalk::Finding finding);

}  // namespace skiff::vmm
