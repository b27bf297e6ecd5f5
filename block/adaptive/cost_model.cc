// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/adaptive/cost_model.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "block/adaptive/adaptive_counters.h"
#include "block/request_fixup.h"
#include "loop/clock.h"

namespace skiff::block {
namespace {

constexpr uint64_t kMaxInlineBytes = 256 * 1024;

// How many are tried each way before anything is decided.
constexpr uint64_t kFirstHandOvers = 16;
constexpr uint64_t kFirstCalls = 4;
// A way must be this much better to be changed to: what is as good is not worth a change.
constexpr double kWorthAChange = 0.03;
// And this much within its bounds.
constexpr double kToEnter = 0.75;
constexpr uint8_t kJudgeEvery = 8;

// One request in so many is spent on learning.
constexpr uint32_t kExploreEvery = 256;
constexpr uint8_t kMaxHandOverShift = 6;
constexpr uint8_t kMaxCallShift = 4;
constexpr uint32_t kMaxCallsTogether = 8;
constexpr uint32_t kMaxTogether = 32;
// Worse by this much is clearly worse.
constexpr double kClearly = 1.25;

// Times longer than this are always measured; shorter ones sometimes, as two looks at the clock
// would be a good part of them.
constexpr int64_t kAlwaysMeasureNs = 10'000;
constexpr uint64_t kMeasureEvery = 16;
constexpr uint64_t kWatchSubmitEvery = 256;

// A loop's callbacks take this long now and then, whatever they do.
constexpr double kUsualCallbackNs = 5'000;
// Others count as many from one arrival in so many requests on.
constexpr double kSharedFrom = 1.0 / 64;
constexpr int64_t kOthersWindowNs = 1'000'000;
constexpr double kOthersNewest = 1.0 / 4;

constexpr double kRegretNewest = 1.0 / 16;
constexpr uint32_t kCallsToForgive = 64;
constexpr uint8_t kMaxOffShift = 12;
constexpr int64_t kOffUnitNs = 1'000'000;

constexpr int64_t kStallNs = 100'000;
constexpr uint32_t kWatchAfterStall = 8;

}  // namespace

CostModel::CostModel(const loop::Clock& clock, const Options& options, AdaptiveCounters& counters)
    : clock_(clock), options_(options), counters_(counters) {}

bool CostModel::may_be_inline(const Request& request) {
  const bool transfer = request.op == IoOp::kRead || request.op == IoOp::kWrite;
  return transfer && !request.fua && request.length_bytes <= kMaxInlineBytes;
}

size_t CostModel::depth_index(uint32_t depth) {
  // 1, 2, 3-4, 5-8, 9-16, more.
  const auto index = static_cast<size_t>(std::bit_width(std::max(depth, 1U) - 1));
  return std::min(index, kDepths - 1);
}

size_t CostModel::size_index(uint64_t length_bytes) {
  // Up to 4, 16, 64 and 256 KiB.
  size_t index = 0;
  for (uint64_t limit = 4096; length_bytes > limit && index < kSizes - 1; limit *= 4) ++index;
  return index;
}

const CostModel::Kind& CostModel::kind_of(const Request& request) const {
  const size_t op = request.op == IoOp::kRead ? 0 : 1;
  return kinds_[op * kSizes + size_index(request.length_bytes)];
}
CostModel::Kind& CostModel::kind_of(const Request& request) {
  return const_cast<Kind&>(static_cast<const CostModel*>(this)->kind_of(request));
}
const CostModel::Cell& CostModel::cell_of(const Request& request) const {
  return kind_of(request).cells[depth_index(request.depth)];
}
CostModel::Cell& CostModel::cell_of(const Request& request) {
  return kind_of(request).cells[depth_index(request.depth)];
}

const CostModel::HandOver& CostModel::hand_over(const Cell& cell, Way way) {
  return way == Way::kPool ? cell.pool : cell.ring;
}

CostModel::Way CostModel::hand_over_way(const Cell& cell) const {
  if (!options_.ring) return Way::kPool;
  if (ring_blocks_until_ns_ == 0) return Way::kRing;
  // The ring blocks: the pool, unless it has been tried and is no better even so.
  const bool both_known = cell.pool.per_request.count() >= kFirstHandOvers;
  const bool pool = !both_known || cell.pool.latency.tail_ns() < cell.ring.latency.tail_ns();
  return pool ? Way::kPool : Way::kRing;
}

bool CostModel::is_shared(double async_ns) const {
  return others_per_ns_ * async_ns >= kSharedFrom;
}

double CostModel::gain_ns(const Kind& kind, const Cell& cell) const {
  const HandOver& other = hand_over(cell, hand_over_way(cell));
  const auto call_ns = static_cast<double>(kind.call.cost_ns());
  if (!options_.nowait) return static_cast<double>(other.per_request.cost_ns()) - call_ns;
  // What a hit would cost when handed over is not told apart from what a miss costs: the fastest
  // were hits.
  const double saved_ns = static_cast<double>(other.per_request.fastest_ns()) - call_ns;
  return kind.hit_share * saved_ns -
         (1 - kind.hit_share) * static_cast<double>(kind.miss.mean_ns());
}

bool CostModel::inline_is_better(const Kind& kind, const Cell& cell) const {
  if (kind.call.count() == 0) return false;
  const auto call_ns = static_cast<double>(kind.call.mean_ns());
  const HandOver& other = hand_over(cell, hand_over_way(cell));
  const auto async_ns = static_cast<double>(other.per_request.mean_ns());
  const double gain = gain_ns(kind, cell);
  const double others_wait_ns = others_per_ns_ * call_ns * call_ns / 2;
  const bool is_now = cell.way == Way::kInline;
  // A miss costs little beside what follows it, but it is spent for nothing.
  const double scale_ns = options_.nowait ? call_ns : async_ns;
  const double margin_ns = scale_ns * (is_now ? -kWorthAChange : kWorthAChange);
  if (gain - others_wait_ns < margin_ns) return false;
  // By the least that was seen: a bad moment must not be what allows to hold the others up.
  const double harmless_ns =
      std::max({static_cast<double>(other.per_request.fastest_ns()) - call_ns,
                static_cast<double>(wake_.fastest_ns()), kUsualCallbackNs});
  if (is_shared(async_ns) && call_ns > harmless_ns * (is_now ? 1 : kToEnter)) return false;
  return static_cast<double>(kind.call.tail_ns()) <
         static_cast<double>(options_.hold_cap_ns) * (is_now ? 1 : kToEnter);
}

bool CostModel::inline_is_off() {
  if (inline_off_until_ns_ == 0) return false;
  if (clock_.now_ns() < inline_off_until_ns_) return true;
  inline_off_until_ns_ = 0;
  return false;
}

bool CostModel::may_try_inline(const Cell& cell) {
  if (inline_is_off()) return false;
  // A call takes about as long as the latency elsewhere. It is not tried where that is too long.
  return options_.nowait ||
         hand_over(cell, hand_over_way(cell)).latency.mean_ns() < options_.hold_cap_ns;
}

void CostModel::judge(const Kind& kind, Cell& cell) {
  cell.judge_in = kJudgeEvery;
  cell.shared =
      is_shared(static_cast<double>(hand_over(cell, hand_over_way(cell)).per_request.mean_ns()));
  const Way before = cell.way;
  cell.way = inline_is_better(kind, cell) ? Way::kInline : hand_over_way(cell);
  if (cell.decided && cell.way == before) return;
  if (cell.decided) AdaptiveCounters::add(counters_.revisions);
  cell.decided = true;
  cell.explore_shift = 0;
  schedule_exploring(cell, 1);
}

void CostModel::schedule_exploring(Cell& cell, uint32_t burst) {
  cell.explore_in = (kExploreEvery * burst) << cell.explore_shift;
}

bool CostModel::start_exploring(Kind& kind, Cell& cell, uint32_t depth) {
  const bool calls_now = cell.way == Way::kInline;
  const auto call_ns = static_cast<double>(kind.call.mean_ns());
  const auto async_ns =
      static_cast<double>(hand_over(cell, hand_over_way(cell)).per_request.mean_ns());
  const double ratio =
      calls_now ? async_ns / std::max(call_ns, 1.0) : call_ns / std::max(async_ns, 1.0);
  // Also where a call is cheaper and yet not made, and where others would wait for the trial.
  const bool refused = !calls_now && (ratio < 1 || cell.shared);
  const bool settled = (ratio > kClearly || refused) && kind.call.count() > 0;
  const auto rarer = static_cast<uint8_t>(cell.explore_shift + 1);
  const uint8_t rarest = calls_now ? kMaxHandOverShift : kMaxCallShift;
  cell.explore_shift = settled ? std::min(rarer, rarest) : uint8_t{0};
  // The ring is measured beside as many requests as usual. Calls that are tried rarely are tried
  // several at once, so that an estimate that was wrong does not stay so for long.
  const uint32_t together = std::min(depth, kMaxTogether);
  const uint32_t calls = std::min(1U << cell.explore_shift, kMaxCallsTogether);
  const uint32_t burst = calls_now ? 4 * together : calls;
  cell.burst_unmeasured = static_cast<uint8_t>(calls_now ? together : 0U);
  schedule_exploring(cell, burst);
  if (!calls_now && !may_try_inline(cell)) return false;
  if (!calls_now) kind.call.forget_rare();
  cell.burst_way = calls_now ? hand_over_way(cell) : Way::kInline;
  cell.burst_left = static_cast<uint8_t>(burst);
  return true;
}

CostModel::Choice CostModel::make_choice(const Kind& kind, const Cell& cell, Way way,
                                         uint32_t depth) {
  Choice choice;
  choice.call_ns = kind.call.mean_ns();
  choice.shared = cell.shared;
  ++choices_;
  choice.measure = choice.call_ns >= kAlwaysMeasureNs || choices_ % kMeasureEvery == 0;
  switch (way) {
    case Way::kInline:
      choice.mode = ServiceMode::kInline;
      return choice;
    case Way::kPool:
      choice.mode = ServiceMode::kPool;
      return choice;
    case Way::kRing:
      break;
  }
  choice.mode = depth <= 1 ? ServiceMode::kRingWait : ServiceMode::kRingAsync;
  choice.watch_submit = choices_ % kWatchSubmitEvery == 0 || watch_soon_ > 0;
  return choice;
}

CostModel::Choice CostModel::choose(const Request& request) {
  if (ring_blocks_until_ns_ != 0 && clock_.now_ns() >= ring_blocks_until_ns_)
    ring_blocks_until_ns_ = 0;
  if (!may_be_inline(request)) {
    Choice choice;
    choice.mode =
        options_.ring && ring_blocks_until_ns_ == 0 ? ServiceMode::kRingAsync : ServiceMode::kPool;
    return choice;
  }
  Kind& kind = kind_of(request);
  Cell& cell = kind.cells[depth_index(request.depth)];
  bool explores = false;
  Way way = cell.way;
  if (cell.burst_left > 0) {
    explores = true;
  } else if (!cell.decided) {
    // Both ways are needed before there is anything to decide.
    way = hand_over_way(cell);
    const bool hand_over_known = hand_over(cell, way).per_request.count() >= kFirstHandOvers;
    if (hand_over_known && kind.tries < kFirstCalls && may_try_inline(cell)) way = Way::kInline;
    if (hand_over_known && way != Way::kInline) {
      judge(kind, cell);
      way = cell.way;
    } else {
      Choice choice = make_choice(kind, cell, way, request.depth);
      choice.explored = true;
      choice.measure = true;
      return choice;
    }
  } else if (--cell.explore_in == 0) {
    explores = start_exploring(kind, cell, request.depth);
  } else if (--cell.judge_in == 0) {
    judge(kind, cell);
  }
  if (explores) {
    --cell.burst_left;
    way = cell.burst_way;
    AdaptiveCounters::add(counters_.explored);
  } else {
    way = cell.way == Way::kInline && !inline_is_off() ? Way::kInline : hand_over_way(cell);
  }
  Choice choice = make_choice(kind, cell, way, request.depth);
  choice.explored = explores;
  if (!explores) return choice;
  choice.measure = cell.burst_unmeasured == 0;
  if (cell.burst_unmeasured > 0) --cell.burst_unmeasured;
  return choice;
}

bool CostModel::still_inline(const Request& request) const {
  const Cell& cell = cell_of(request);
  return !cell.decided || cell.way == Way::kInline;
}

bool CostModel::fits_before(const Request& request, int64_t now_ns, int64_t deadline_ns) const {
  return deadline_ns - now_ns > kind_of(request).call.tail_ns();
}

void CostModel::inline_done(const Request& request, int64_t service_ns) {
  Kind& kind = kind_of(request);
  kind.call.record(service_ns);
  ++kind.tries;
  kind.hit_share += (1 - kind.hit_share) * kRegretNewest;
}

void CostModel::inline_missed(const Request& request, int64_t cost_ns) {
  Kind& kind = kind_of(request);
  kind.miss.record(cost_ns);
  ++kind.tries;
  kind.hit_share -= kind.hit_share * kRegretNewest;
}

void CostModel::async_done(const Request& request, ServiceMode mode, int64_t latency_ns) {
  Cell& cell = cell_of(request);
  HandOver& way = mode == ServiceMode::kPool ? cell.pool : cell.ring;
  way.latency.record(latency_ns);
  way.per_request.record(latency_ns / std::max<uint32_t>(request.depth, 1));
}

void CostModel::submit_took(int64_t time_ns) {
  if (time_ns < kStallNs) {
    if (watch_soon_ > 0) --watch_soon_;
    if (watch_soon_ == 0) stalls_seen_ = 0;
    return;
  }
  AdaptiveCounters::add(counters_.submit_stalls);
  // One may be a thread that was not running; a second one in the next few is the file.
  if (++stalls_seen_ < 2) {
    watch_soon_ = kWatchAfterStall;
    return;
  }
  stalls_seen_ = 0;
  watch_soon_ = 0;
  ring_blocks_until_ns_ = clock_.now_ns() + (kOffUnitNs << stall_shift_);
  stall_shift_ = std::min<uint8_t>(static_cast<uint8_t>(stall_shift_ + 1), kMaxOffShift);
  AdaptiveCounters::add(counters_.revisions);
}

void CostModel::observe_others(uint64_t arrivals, int64_t window_ns) {
  window_arrivals_ += arrivals;
  window_ns_ += window_ns;
  if (window_ns_ < kOthersWindowNs) return;
  const double rate = static_cast<double>(window_arrivals_) / static_cast<double>(window_ns_);
  others_per_ns_ += (rate - others_per_ns_) * kOthersNewest;
  window_arrivals_ = 0;
  window_ns_ = 0;
  counters_.others_per_s.store(static_cast<uint64_t>(others_per_ns_ * 1e9),
                               std::memory_order_relaxed);
}

void CostModel::observe_regret(const Request& request, uint64_t arrivals, int64_t service_ns) {
  const Kind& kind = kind_of(request);
  const double waited_ns = static_cast<double>(arrivals) * static_cast<double>(service_ns) / 2;
  const double saved_ns = std::max(gain_ns(kind, cell_of(request)), 0.0);
  AdaptiveCounters::add(counters_.regret_ns, static_cast<uint64_t>(waited_ns));
  regret_ns_ += (waited_ns - regret_ns_) * kRegretNewest;
  saved_ns_ += (saved_ns - saved_ns_) * kRegretNewest;
  if (arrivals == 0 || regret_ns_ <= saved_ns_) {
    if (++calls_without_regret_ >= kCallsToForgive) regret_shift_ = 0;
    return;
  }
  calls_without_regret_ = 0;
  inline_off_until_ns_ = clock_.now_ns() + (kOffUnitNs << regret_shift_);
  regret_shift_ = std::min<uint8_t>(static_cast<uint8_t>(regret_shift_ + 1), kMaxOffShift);
  // What follows is judged by itself.
  regret_ns_ = 0;
  AdaptiveCounters::add(counters_.regrets);
}

void CostModel::observe_wake(int64_t late_ns) {
  wake_.record(late_ns);
  counters_.wake_ns.store(static_cast<uint64_t>(wake_.mean_ns()), std::memory_order_relaxed);
}

int64_t CostModel::inline_ns(const Request& request) const {
  return kind_of(request).call.mean_ns();
}

int64_t CostModel::async_ns(const Request& request) const {
  const Cell& cell = cell_of(request);
  return hand_over(cell, hand_over_way(cell)).per_request.mean_ns();
}

}  // namespace skiff::block
