// SPDX-License-Identifier: GPL-2.0-or-later
// IoUringEngine: requests as SQEs on the loop's own ring, so they ride in the loop's next wait.
//
// Thread: the loop's throughout. Ownership: borrows the loop, which must have a ring.
#pragma once

#include "block/io_engine.h"
#include "loop/home.h"

namespace skiff::block {

class IoUringEngine final : public IoEngine {
 public:
  IoUringEngine(const IoTarget& target, loop::EventLoop& loop) : target_(target), home_(loop) {}
  ~IoUringEngine() override;
  IoUringEngine(const IoUringEngine&) = delete;
  IoUringEngine& operator=(const IoUringEngine&) = delete;

  std::string_view name() const override { return "io_uring"; }
  void submit(std::span<IoRequest* const> batch) override;
  uint32_t in_flight() const override { return in_flight_; }

 private:
  enum class Punt : uint8_t { kNo, kYes };

  static void on_cqe(loop::RingOperation& operation, int32_t result, uint32_t cqe_flags);
  void queue_step(IoRequest& request, Punt punt) SKIFF_REQUIRES(home_);

  const IoTarget target_;
  loop::Home home_;
  uint32_t in_flight_ = 0;
};

}  // namespace skiff::block
