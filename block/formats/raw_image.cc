// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/raw_image.h"

#include <atomic>
#include <memory>
#include <utility>

#include "block/block_channel.h"
#include "block/engines/faulty_engine.h"
#include "block/formats/raw_channel.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"

namespace skiff::block {

loop::Result<std::unique_ptr<BlockChannel>> RawImage::open_channel(loop::EventLoop& loop) {
  auto engine = make_io_engine(engine_, device_->target(), loop, pool_);
  if (!engine) return engine.error().with_context("Opening disk", name());
  std::unique_ptr<IoEngine> moves = *std::move(engine);
  if (faults_ != nullptr)
    moves = std::make_unique<FaultyEngine>(*faults_, device_->target(), loop, std::move(moves));
  return std::unique_ptr<BlockChannel>(std::make_unique<RawChannel>(*this, loop, std::move(moves)));
}

void RawImage::note_cannot(IoOp op) {
  const bool discard = op == IoOp::kDiscard;
  auto& flag = discard ? cannot_discard_ : cannot_write_zeroes_;
  if (flag.exchange(true, std::memory_order_relaxed)) return;
  SKIFF_LOG(kInfo, "Disk {}: the file system cannot {} any more, which it could when it was opened",
            name(), discard ? "punch holes" : "zero ranges");
}

}  // namespace skiff::block
