// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/raw_image.h"

#include <memory>
#include <utility>

#include "block/block_channel.h"
#include "block/formats/raw_channel.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::block {

loop::Result<std::unique_ptr<BlockChannel>> RawImage::open_channel(loop::EventLoop& loop) {
  auto engine = make_io_engine(engine_, device_->target(), loop, pool_);
  if (!engine) return engine.error().with_context("Opening disk", name());
  return std::unique_ptr<BlockChannel>(
      std::make_unique<RawChannel>(*this, loop, *std::move(engine)));
}

}  // namespace skiff::block
