// SPDX-License-Identifier: GPL-2.0-or-later
// CostModel: whether the next request is cheaper as a blocking call on this thread or handed over.
//
// It knows what was measured and nothing else; there is nothing to tune. For each operation, size
// and number of requests under way it keeps what a request costs each way: inline, the time of the
// call; on the ring or the pool, the latency divided by how many shared it, which by Little's law
// is the time between two completions. Inline is chosen where it costs less, when also
//   - what it makes others wait is less than what it saves: their rate times half the square of the
//     call's time;
//   - on a loop to which much else comes, the call itself is no longer than what it saves at least,
//     or than the loop's waking up would cost them at least;
//   - 99 of 100 calls end within 200 us (20 us on a vCPU's loop) and before the next timer.
// Where others waited for longer in sum than was saved, inline is switched off for a while, longer
// each time. The way not taken is tried now and then: at most for one request in 256, ever more
// rarely while it is clearly worse.
//
// Thread: one. Ownership: a value; borrows the clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "block/adaptive/adaptive_counters.h"
#include "block/adaptive/service_time.h"
#include "block/request_fixup.h"
#include "loop/clock.h"

namespace skiff::block {

// How a request is served. The two on the ring are one and the same to the model.
enum class ServiceMode : uint8_t {
  kInline,     // M0: preadv2 or pwritev2 on the loop's own thread.
  kRingWait,   // M1: alone on the ring, in the turn's own wait.
  kRingAsync,  // M2: beside others.
  kPool,       // M3: on a worker.
};

class CostModel {
 public:
  struct Options {
    bool ring = true;               // The loop has one.
    bool nowait = false;            // Inline calls end with EAGAIN rather than block.
    int64_t hold_cap_ns = 200'000;  // The longest that an inline call may usually take.
  };
  struct Request {
    IoOp op = IoOp::kRead;
    bool fua = false;
    uint64_t length_bytes = 0;
    uint32_t depth = 1;  // Requests under way or about to be, this one included.
  };
  struct Choice {
    ServiceMode mode = ServiceMode::kRingAsync;
    int64_t call_ns = 0;        // What an inline call is expected to take; 0: unknown.
    bool explored = false;      // Chosen to learn from it: not to be thought over.
    bool measure = false;       // The outcome is wanted: tell inline_done() or async_done().
    bool shared = false;        // Much else comes to the loop.
    bool watch_submit = false;  // Also how long the submission takes: submit_took().
  };

  CostModel(const loop::Clock& clock, const Options& options, AdaptiveCounters& counters);

  // What may be inline at all: small transfers that need not reach the medium.
  static bool may_be_inline(const Request& request);

  Choice choose(const Request& request);
  // Is inline still right for a request that was to be inline, at this depth?
  bool still_inline(const Request& request) const;
  // May a call of this kind begin at `now_ns` when the next timer is due at `deadline_ns`?
  bool fits_before(const Request& request, int64_t now_ns, int64_t deadline_ns) const;

  // Outcomes. `depth` as at the choice.
  void inline_done(const Request& request, int64_t service_ns);
  // With Options::nowait: it would have blocked, and said so after `cost_ns`.
  void inline_missed(const Request& request, int64_t cost_ns);
  // From the hand-over to the completion, by kPool or else the ring.
  void async_done(const Request& request, ServiceMode mode, int64_t latency_ns);
  void submit_took(int64_t time_ns);

  // `arrivals` came to the loop from elsewhere during `window_ns`.
  void observe_others(uint64_t arrivals, int64_t window_ns);
  // `arrivals` came during an inline call of `service_ns`: each waited half of it on average.
  void observe_regret(const Request& request, uint64_t arrivals, int64_t service_ns);
  // How late the loop was at a timer that ended its sleep.
  void observe_wake(int64_t late_ns);

  // What is believed of such requests; 0: nothing yet.
  int64_t inline_ns(const Request& request) const;
  int64_t async_ns(const Request& request) const;  // At their depth.

 private:
  enum class Way : uint8_t { kInline, kRing, kPool };

  struct HandOver {
    ServiceTime per_request;
    ServiceTime latency;
  };
  // One operation, size and depth.
  struct Cell {
    HandOver ring;
    HandOver pool;
    Way way = Way::kRing;
    bool decided = false;
    bool shared = false;
    uint8_t judge_in = 0;
    uint8_t explore_shift = 0;
    uint8_t burst_left = 0;
    uint8_t burst_unmeasured = 0;  // The first of a burst still share the loop with the other way.
    Way burst_way = Way::kInline;
    uint32_t explore_in = 0;
  };
  static constexpr size_t kDepths = 6;
  // One operation and size.
  struct Kind {
    ServiceTime call;
    ServiceTime miss;
    double hit_share = 1;
    uint64_t tries = 0;
    std::array<Cell, kDepths> cells;
  };
  static constexpr size_t kSizes = 4;

  static size_t depth_index(uint32_t depth);
  static size_t size_index(uint64_t length_bytes);
  Kind& kind_of(const Request& request);
  const Kind& kind_of(const Request& request) const;
  Cell& cell_of(const Request& request);
  const Cell& cell_of(const Request& request) const;

  Way hand_over_way(const Cell& cell) const;
  static const HandOver& hand_over(const Cell& cell, Way way);
  bool is_shared(double async_ns) const;
  double gain_ns(const Kind& kind, const Cell& cell) const;
  bool inline_is_better(const Kind& kind, const Cell& cell) const;
  bool inline_is_off();
  bool may_try_inline(const Cell& cell);
  void judge(const Kind& kind, Cell& cell);
  bool start_exploring(Kind& kind, Cell& cell, uint32_t depth);
  void schedule_exploring(Cell& cell, uint32_t burst);
  Choice make_choice(const Kind& kind, const Cell& cell, Way way, uint32_t depth);

  const loop::Clock& clock_;
  const Options options_;
  AdaptiveCounters& counters_;

  std::array<Kind, 2 * kSizes> kinds_;
  uint64_t choices_ = 0;

  double others_per_ns_ = 0;
  uint64_t window_arrivals_ = 0;
  int64_t window_ns_ = 0;

  ServiceTime wake_;

  double regret_ns_ = 0;
  double saved_ns_ = 0;
  uint32_t calls_without_regret_ = 0;
  uint8_t regret_shift_ = 0;
  int64_t inline_off_until_ns_ = 0;

  uint32_t watch_soon_ = 0;  // Submissions to watch because one has just blocked.
  uint32_t stalls_seen_ = 0;
  uint8_t stall_shift_ = 0;
  int64_t ring_blocks_until_ns_ = 0;
};

}  // namespace skiff::block
