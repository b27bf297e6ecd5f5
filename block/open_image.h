// SPDX-License-Identifier: GPL-2.0-or-later
// open_image(): from what the user wrote to a disk that can be used.
//
// Thread: main loop; blocks while it opens. Ownership: the caller owns the image; the pool outlives
// it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/filters/fault_rules.h"
#include "block/filters/throttled_image.h"
#include "block/io_engine.h"
#include "block/nbd/nbd_patience.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

enum class ImageFormat : uint8_t { kRaw };

struct ImageOptions {
  // Or null:size=8G,latency=30us, see null_device.h; or an NBD URL, see nbd/nbd_url.h.
  std::string path;
  // Never guessed. Nothing stands for raw too, but then a file that looks like another format is
  // refused: a guest would see, and could overwrite, the image's own tables.
  std::optional<ImageFormat> format;
  WriteAccess access = WriteAccess::kReadWrite;
  DirectIo direct = DirectIo::kOff;
  IoEngineKind engine = IoEngineKind::kAuto;
  NbdPatience nbd = {};  // Of an NBD URL.
  // Rules, perhaps none as yet: a FaultyImage on top. Nothing: no such node.
  std::optional<FaultRules> faults;
  ThrottleLimits throttle;  // Any limit: a ThrottledImage on top of that.
};

// Errors as FileDevice::open() and NbdImage::open(). `pool` does the work on loops without
// io_uring.
loop::Result<std::unique_ptr<BlockBackend>> open_image(const ImageOptions& options,
                                                       loop::WorkerPool& pool);

}  // namespace skiff::block
