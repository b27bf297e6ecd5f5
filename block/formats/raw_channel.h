// SPDX-License-Identifier: GPL-2.0-or-later
// RawChannel: one loop's requests to a RawImage, handed to its engine as they are.
//
// Only what O_DIRECT refuses takes a detour, see unaligned_job.h, and what the file cannot do by
// itself, see zero_fill.h and status_job.h. Thread: the loop's throughout. Ownership: borrows the
// image, owns the engine; destroyed when nothing is in flight.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "block/block_channel.h"
#include "block/formats/flush_coalescer.h"
#include "block/formats/raw_image.h"
#include "block/io_engine.h"
#include "loop/home.h"

namespace skiff::block {

class RawChannel final : public BlockChannel, private FlushCoalescer::Client {
 public:
  RawChannel(RawImage& image, loop::EventLoop& loop, std::unique_ptr<IoEngine> engine);
  ~RawChannel() override;
  RawChannel(const RawChannel&) = delete;
  RawChannel& operator=(const RawChannel&) = delete;

  void submit(std::span<BlockRequest* const> batch) override;
  // The parts of a request that is carried out in several count as well.
  uint32_t in_flight() const override { return in_flight_; }
  const AdaptiveCounters* adaptive_counters() const override {
    return engine_->adaptive_counters();
  }

  // For the detours.
  RawImage& image() const { return image_; }
  IoEngine& engine() const { return *engine_; }
  loop::EventLoop& loop() const { return home_.loop(); }
  // The one place where an engine's result becomes the channel's: ends the request, or tries
  // another way. `result` is what the engine gave; fewer bytes than asked for are an error.
  void finish(BlockRequest& request, int32_t result);

 private:
  static void on_io_done(IoRequest& io, int32_t result);

  // 0, or the -errno the request deserves before anything was tried.
  int32_t check(const BlockRequest& request) const;
  // How the request is carried out; nothing when zeroes have to be written out.
  std::optional<IoOp> io_op(const BlockRequest& request) const;
  bool needs_detour(const BlockRequest& request) const;
  void start(BlockRequest& request) SKIFF_REQUIRES(home_);
  void carry_out(BlockRequest& request) SKIFF_REQUIRES(home_);
  void send() SKIFF_REQUIRES(home_);
  void end(BlockRequest& request, int32_t result);
  int32_t check_transfer(const BlockRequest& request, int32_t result) const;
  void log_failure(const BlockRequest& request, int32_t result) const;

  // FlushCoalescer::Client.
  void collect_flush(IoRequest& io) override;
  void send_collected() override;
  void flush_failed(int32_t result) override;
  void end_flush(BlockRequest& request, int32_t result) override { end(request, result); }

  void finish_later(BlockRequest& request, int32_t result) SKIFF_REQUIRES(home_);
  void run_finished();

  loop::Home home_;
  RawImage& image_;
  std::unique_ptr<IoEngine> engine_;
  std::vector<IoRequest*> batch_ SKIFF_GUARDED_BY(home_);
  FlushCoalescer flushes_ SKIFF_GUARDED_BY(home_);
  uint32_t in_flight_ = 0;
  // Requests that were over before they began.
  BlockRequest* finished_first_ SKIFF_GUARDED_BY(home_) = nullptr;
  BlockRequest* finished_last_ SKIFF_GUARDED_BY(home_) = nullptr;
  loop::BottomHalf finished_bh_;
};

}  // namespace skiff::block
