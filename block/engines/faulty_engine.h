// SPDX-License-Identifier: GPL-2.0-or-later
// FaultyEngine: an engine before a kernel on a bad day: short transfers, EINTR, EAGAIN.
//
// Stands between a RawChannel and its engine, and plays both kernel and engine for the requests
// that a rule picks: their steps are cut short or refused, and RequestProgress, the one place that
// repairs such things, has to bring them to their end. What moves bytes is the engine below, whose
// own repairs stay as they are. Thread: the home loop's. Ownership: owns the engine below; borrows
// the plan.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "block/filters/fault_plan.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/home.h"

namespace skiff::block {

class FaultyEngine final : public IoEngine {
 public:
  FaultyEngine(FaultPlan& plan, const IoTarget& target, loop::EventLoop& loop,
               std::unique_ptr<IoEngine> below)
      : home_(loop), direct_io_(target.direct_io), dice_(plan), below_(std::move(below)) {}
  ~FaultyEngine() override;

  std::string_view name() const override { return below_->name(); }
  void submit(std::span<IoRequest* const> batch) override;
  uint32_t in_flight() const override { return below_->in_flight(); }
  const AdaptiveCounters* adaptive_counters() const override { return below_->adaptive_counters(); }

 private:
  struct Job;
  static void on_step_done(IoRequest& step, int32_t result);
  void start(IoRequest& request, FaultRule::Io first) SKIFF_REQUIRES(home_);
  void run_step(Job& job, FaultRule::Io fault) SKIFF_REQUIRES(home_);

  loop::Home home_;
  const bool direct_io_;
  FaultDice dice_ SKIFF_GUARDED_BY(home_);
  std::unique_ptr<IoEngine> below_;
  uint32_t jobs_ = 0;
};

}  // namespace skiff::block
