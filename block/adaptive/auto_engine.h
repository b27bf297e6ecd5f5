// SPDX-License-Identifier: GPL-2.0-or-later
// AutoEngine: each request the way that costs least now: a blocking call, the ring, or a worker.
//
// What is chosen inline waits for the next turn, which begins without sleeping: what else the
// present one submits is then known, and a completion never runs inside submit(). Everything else
// goes to the engine below at once. CostModel decides.
// Thread: the home loop's throughout; counters from any. Ownership: borrows the loop, owns the
// engines below.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "block/adaptive/adaptive_counters.h"
#include "block/adaptive/cost_model.h"
#include "block/engines/engine_base.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/home.h"

namespace skiff::block {

class AutoEngine final : public IoEngine {
 public:
  // `ring` may be null, where there is none; `pool` never is. Both serve `target` on `loop`.
  AutoEngine(const IoTarget& target, loop::EventLoop& loop, std::unique_ptr<IoEngine> ring,
             std::unique_ptr<IoEngine> pool);
  ~AutoEngine() override;
  AutoEngine(const AutoEngine&) = delete;
  AutoEngine& operator=(const AutoEngine&) = delete;

  std::string_view name() const override { return "auto"; }
  void submit(std::span<IoRequest* const> batch) override;
  uint32_t in_flight() const override { return in_flight_; }
  const AdaptiveCounters* adaptive_counters() const override { return &counters_; }

 private:
  // An inline call whose effect on others is to be looked at.
  struct Watched {
    CostModel::Request request;
    int64_t service_ns = 0;
    uint64_t turn = 0;
    uint64_t arrivals = 0;
    uint64_t own = 0;
    bool active = false;
  };

  static void on_done(IoRequest& request, int32_t result);
  static CostModel::Request facts(const IoRequest& request, uint32_t depth);

  void hand_over(IoRequest& request, const CostModel::Request& its, const CostModel::Choice& choice)
      SKIFF_REQUIRES(home_);
  void count_own_arrival() SKIFF_REQUIRES(home_);
  void measured(const IoRequest& request) SKIFF_REQUIRES(home_);
  void serve_waiting();
  // False when it went to another engine after all.
  bool serve(IoRequest& request) SKIFF_REQUIRES(home_);
  bool may_block(const IoRequest& request) const SKIFF_REQUIRES(home_);
  // Both false when it would have blocked.
  bool call(IoRequest& request) SKIFF_REQUIRES(home_);
  bool call_nowait(IoRequest& request) SKIFF_REQUIRES(home_);
  void look_at_watched() SKIFF_REQUIRES(home_);
  void meter_wake(size_t requests) SKIFF_REQUIRES(home_);
  void on_wake_timer();

  const IoTarget target_;
  const bool nowait_;
  loop::Home home_;
  AdaptiveCounters counters_;
  CostModel model_ SKIFF_GUARDED_BY(home_);
  std::unique_ptr<IoEngine> ring_;
  std::unique_ptr<IoEngine> pool_;

  RequestList waiting_ SKIFF_GUARDED_BY(home_);  // To be served inline in the next turn.
  uint32_t waiting_count_ = 0;
  uint32_t in_flight_ = 0;
  uint64_t own_arrivals_ = 0;  // Of the loop's arrivals, those that were completions of ours.
  uint64_t last_done_turn_ = 0;
  Watched watched_ SKIFF_GUARDED_BY(home_);
  loop::BottomHalf serve_bh_;

  loop::Timer wake_timer_;
  uint32_t wake_timers_ = 0;
  size_t wake_timer_in_ = 0;  // Requests until the next.
  int64_t wake_due_ns_ = 0;
  uint64_t wake_sleeps_ = 0;
};

}  // namespace skiff::block
