// SPDX-License-Identifier: GPL-2.0-or-later
// IoUringEngine: requests as SQEs on the loop's own ring, so they ride in the loop's next wait.
//
// Thread: the loop's throughout. Ownership: borrows the loop, which must have a ring.
#pragma once

#include "block/engines/engine_base.h"
#include "block/io_engine.h"

namespace skiff::block {

class IoUringEngine final : public EngineBase {
 public:
  IoUringEngine(const IoTarget& target, loop::EventLoop& loop) : EngineBase(target, loop) {}

  std::string_view name() const override { return "io_uring"; }
  void submit(std::span<IoRequest* const> batch) override;

 private:
  enum class Punt : uint8_t { kNo, kYes };

  static void on_cqe(loop::RingOperation& operation, int32_t result, uint32_t cqe_flags);
  void queue_step(IoRequest& request, Punt punt) SKIFF_REQUIRES(home_);
};

}  // namespace skiff::block
