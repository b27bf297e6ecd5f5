// SPDX-License-Identifier: GPL-2.0-or-later
// RawChannel: one loop's requests to a RawImage, handed to its engine as they are.
//
// Only what O_DIRECT refuses takes a detour, see unaligned_job.h. Thread: the loop's throughout.
// Ownership: borrows the image, owns the engine; destroyed when nothing is in flight.
#pragma once

#include <memory>
#include <vector>

#include "block/block_channel.h"
#include "block/formats/raw_image.h"
#include "block/io_engine.h"
#include "loop/home.h"

namespace skiff::block {

class RawChannel final : public BlockChannel {
 public:
  RawChannel(RawImage& image, loop::EventLoop& loop, std::unique_ptr<IoEngine> engine);
  ~RawChannel() override;
  RawChannel(const RawChannel&) = delete;
  RawChannel& operator=(const RawChannel&) = delete;

  void submit(std::span<BlockRequest* const> batch) override;
  uint32_t in_flight() const override { return in_flight_; }

  // For the detour.
  IoOp io_op(const BlockRequest& request) const;
  RawImage& image() const { return image_; }
  IoEngine& engine() const { return *engine_; }
  loop::EventLoop& loop() const { return home_.loop(); }
  // Ends a request: the one place where an engine's result becomes the channel's. `result` is what
  // the engine gave; fewer bytes than asked for are an error.
  void finish(BlockRequest& request, int32_t result);

 private:
  static void on_io_done(IoRequest& io, int32_t result);

  // 0, or the -errno the request deserves before anything was tried.
  int32_t check(const BlockRequest& request) const;
  bool needs_detour(const BlockRequest& request) const;
  void start(BlockRequest& request) SKIFF_REQUIRES(home_);
  void finish_later(BlockRequest& request, int32_t result) SKIFF_REQUIRES(home_);
  void run_finished();

  loop::Home home_;
  RawImage& image_;
  std::unique_ptr<IoEngine> engine_;
  std::vector<IoRequest*> batch_ SKIFF_GUARDED_BY(home_);
  uint32_t in_flight_ = 0;
  // Requests that were over before they began.
  BlockRequest* finished_first_ SKIFF_GUARDED_BY(home_) = nullptr;
  BlockRequest* finished_last_ SKIFF_GUARDED_BY(home_) = nullptr;
  loop::BottomHalf finished_bh_;
};

}  // namespace skiff::block
