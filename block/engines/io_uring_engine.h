// SPDX-License-Identifier: GPL-2.0-or-later
// IoUringEngine: requests as SQEs on the loop's own ring, so they ride in the loop's next wait.
//
// The file is one of the ring's fixed files where there is room; operations that the kernel's
// io_uring does not know go to the pool, and what keeps being told EAGAIN to io_uring's own
// threads. Thread: the loop's throughout. Ownership: borrows pool and loop, which must have a ring.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "block/engines/engine_base.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/worker_pool.h"

namespace skiff::block {

class IoUringEngine final : public EngineBase {
 public:
  IoUringEngine(const IoTarget& target, loop::EventLoop& loop, loop::WorkerPool& pool);
  ~IoUringEngine() override;

  std::string_view name() const override { return "io_uring"; }
  void submit(std::span<IoRequest* const> batch) override;

 private:
  enum class Punt : uint8_t { kNo, kYes };

  static void on_cqe(loop::RingOperation& operation, int32_t result, uint32_t cqe_flags);
  void register_file() SKIFF_REQUIRES(home_);
  void queue_step(IoRequest& request, Punt punt) SKIFF_REQUIRES(home_);

  loop::WorkerPool& pool_;
  const bool can_fallocate_;
  bool tried_to_register_ SKIFF_GUARDED_BY(home_) = false;
  std::optional<uint32_t> fixed_file_;  // Written by the home thread, and last by the destructor's.
};

}  // namespace skiff::block
