// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/adaptive/auto_engine.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "block/adaptive/adaptive_counters.h"
#include "block/adaptive/cost_model.h"
#include "block/blocking_io.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/probe.h"
#include "block/request_fixup.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_loop_state.h"

namespace skiff::block {
namespace {

// How long inline calls may usually hold a loop: an IOThread's, and a vCPU's, whose guest waits for
// its timers and IPIs meanwhile.
constexpr int64_t kHoldCapNs = 200'000;
constexpr int64_t kVcpuHoldCapNs = 20'000;

// How long a turn may go on with inline calls: as long as with a class of callbacks, and less where
// others wait for the turn's end.
constexpr int64_t kTurnNs = 50'000;
constexpr int64_t kSharedTurnNs = 10'000;
// What a call takes at the very least, for the sum.
constexpr int64_t kCallAtLeastNs = 500;

// Below this a call ends before any timer could matter.
constexpr int64_t kNoMatterNs = 10'000;

constexpr uint32_t kFirstWakes = 8;
constexpr size_t kRequestsBetweenFirstWakes = 64;
constexpr size_t kRequestsBetweenWakes = 4096;
constexpr int64_t kWakeAfterNs = 150'000;
constexpr int64_t kNotAWakeNs = 1'000'000;

int64_t hold_cap_ns(loop::EventLoop& loop) {
  const bool vcpu = loop.state().task_work == loop::EventLoop::TaskWork::kInterrupt;
  return vcpu ? kVcpuHoldCapNs : kHoldCapNs;
}

}  // namespace

AutoEngine::AutoEngine(const IoTarget& target, loop::EventLoop& loop,
                       std::unique_ptr<IoEngine> ring, std::unique_ptr<IoEngine> pool)
    : target_(target),
      // A direct read waits for the device with the flag or without it.
      nowait_(target.fd >= 0 && !target.direct_io && supports_nowait(target.fd)),
      home_(loop),
      model_(*loop.state().clock,
             {.ring = ring != nullptr, .nowait = nowait_, .hold_cap_ns = hold_cap_ns(loop)},
             counters_),
      ring_(std::move(ring)),
      pool_(std::move(pool)),
      serve_bh_(loop, loop::Priority::kSubmission, [this] { serve_waiting(); }),
      wake_timer_(loop, loop::Priority::kDevice, [this] { on_wake_timer(); }),
      wake_timer_in_(kRequestsBetweenFirstWakes) {}

AutoEngine::~AutoEngine() { SKIFF_CHECK(in_flight() == 0); }

CostModel::Request AutoEngine::facts(const IoRequest& request, uint32_t depth) {
  return {
      .op = request.op, .fua = request.fua, .length_bytes = request.length_bytes, .depth = depth};
}

void AutoEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  meter_wake(batch.size());
  in_flight_ += static_cast<uint32_t>(batch.size());
  for (IoRequest* request : batch) {
    const CostModel::Request its = facts(*request, in_flight_);
    const CostModel::Choice choice = model_.choose(its);
    const int32_t refusal = refusal_of(request->op, request->offset_bytes, request->length_bytes);
    if (choice.mode != ServiceMode::kInline || refusal != 0) {
      hand_over(*request, its, choice);
      continue;
    }
    IoInFlight::Chosen& chosen = request->in_flight.chosen;
    chosen.depth = its.depth;
    chosen.call_ns = choice.call_ns;
    chosen.measure = choice.measure;
    chosen.explored = choice.explored;
    chosen.shared = choice.shared;
    waiting_.push_back(*request);
    ++waiting_count_;
    serve_bh_.schedule();
  }
}

void AutoEngine::hand_over(IoRequest& request, const CostModel::Request& its,
                           const CostModel::Choice& choice) {
  const bool to_pool = choice.mode == ServiceMode::kPool || ring_ == nullptr;
  switch (to_pool ? ServiceMode::kPool : choice.mode) {
    case ServiceMode::kPool:
      AdaptiveCounters::add(counters_.pool_calls);
      break;
    case ServiceMode::kRingWait:
      AdaptiveCounters::add(counters_.ring_waits);
      break;
    default:
      AdaptiveCounters::add(counters_.ring_asyncs);
      break;
  }
  IoEngine& engine = to_pool ? *pool_ : *ring_;
  IoInFlight::Chosen& chosen = request.in_flight.chosen;
  chosen.chooser = this;
  chosen.done = std::exchange(request.done, &AutoEngine::on_done);
  chosen.measure = choice.measure;
  if (choice.measure) {
    chosen.depth = its.depth;
    chosen.on_pool = to_pool;
    chosen.start_ns = home_.loop().now_ns();
    chosen.arrivals = home_.loop().arrivals();
    chosen.own_arrivals = own_arrivals_;
  }
  IoRequest* one = &request;
  engine.submit({&one, 1});
  if (!choice.watch_submit || to_pool) return;
  const int64_t start_ns = home_.loop().now_ns();
  home_.loop().submit_sqes();
  model_.submit_took(home_.loop().now_ns() - start_ns);
}

void AutoEngine::on_done(IoRequest& request, int32_t result) {
  const IoInFlight::Chosen& chosen = request.in_flight.chosen;
  auto& self = *static_cast<AutoEngine*>(chosen.chooser);
  self.home_.assert_here();
  request.done = chosen.done;
  --self.in_flight_;
  self.count_own_arrival();
  if (chosen.measure) self.measured(request);
  request.done(request, result);  // The engine may be gone after it.
}

void AutoEngine::count_own_arrival() {
  if (target_.null != nullptr) {
    // One timer serves all requests of a NullDevice that end in a turn.
    const uint64_t turn = home_.loop().counters().turns;
    if (std::exchange(last_done_turn_, turn) == turn) return;
  }
  ++own_arrivals_;
}

void AutoEngine::measured(const IoRequest& request) {
  const IoInFlight::Chosen& chosen = request.in_flight.chosen;
  const int64_t latency_ns = home_.loop().now_ns() - chosen.start_ns;
  const CostModel::Request its = facts(request, chosen.depth);
  const uint64_t arrivals = home_.loop().arrivals() - chosen.arrivals;
  const uint64_t own = own_arrivals_ - chosen.own_arrivals;
  model_.observe_others(arrivals > own ? arrivals - own : 0, latency_ns);
  if (CostModel::may_be_inline(its))
    model_.async_done(its, chosen.on_pool ? ServiceMode::kPool : ServiceMode::kRingAsync,
                      latency_ns);
}

void AutoEngine::serve_waiting() {
  home_.assert_here();
  look_at_watched();
  if (waiting_.empty()) return;
  int64_t left_ns = waiting_.front().in_flight.chosen.shared ? kSharedTurnNs : kTurnNs;
  // Not those that these submit in their turn, and no more than others can wait for.
  for (uint32_t left = waiting_count_; left > 0; --left) {
    if (left_ns <= 0) return serve_bh_.schedule();
    IoRequest& request = waiting_.pop_front();
    --waiting_count_;
    left_ns -= std::max(request.in_flight.chosen.call_ns, kCallAtLeastNs);
    // After the last one's completion the engine may be gone.
    const bool last = in_flight_ == 1;
    if (serve(request) && last) return;
  }
}

bool AutoEngine::may_block(const IoRequest& request) const {
  const IoInFlight::Chosen& chosen = request.in_flight.chosen;
  const CostModel::Request its = facts(request, in_flight_);
  if (!chosen.explored && its.depth != chosen.depth && !model_.still_inline(its)) return false;
  return chosen.call_ns < kNoMatterNs ||
         model_.fits_before(its, home_.loop().now_ns(), home_.loop().next_deadline_ns());
}

bool AutoEngine::serve(IoRequest& request) {
  if (!may_block(request) || !call(request)) {
    CostModel::Choice choice;
    choice.mode = in_flight_ == 1 ? ServiceMode::kRingWait : ServiceMode::kRingAsync;
    hand_over(request, facts(request, in_flight_), choice);
    return false;
  }
  --in_flight_;
  request.done(request, request.in_flight.result);
  return true;
}

bool AutoEngine::call(IoRequest& request) {
  IoInFlight& state = request.in_flight;
  const bool measure = state.chosen.measure;
  const int64_t start_ns = measure ? home_.loop().now_ns() : 0;
  state.progress.begin(request.op, request.offset_bytes, request.length_bytes, request.iov);
  bool missed = false;
  if (nowait_)
    missed = !call_nowait(request);
  else
    state.result = run_blocking(target_, request, NullWait::kSpinIfShort);
  const int64_t service_ns = measure ? home_.loop().now_ns() - start_ns : 0;
  AdaptiveCounters::add(missed ? counters_.nowait_misses : counters_.inline_calls);
  if (!measure) return !missed;
  const CostModel::Request its = facts(request, state.chosen.depth);
  if (missed) {
    model_.inline_missed(its, service_ns);
    return false;
  }
  model_.inline_done(its, service_ns);
  watched_ = {.request = its,
              .service_ns = service_ns,
              .turn = home_.loop().counters().turns,
              .arrivals = home_.loop().arrivals(),
              .own = own_arrivals_,
              .active = true};
  serve_bh_.schedule();  // To see in the next turn what came meanwhile.
  return true;
}

bool AutoEngine::call_nowait(IoRequest& request) {
  IoInFlight& state = request.in_flight;
  state.progress.next_step(state.step);
  const int32_t result = perform_step(target_.fd, state.step, RWF_NOWAIT);
  // Whatever is not simply done is asked for once more, where it may take its time.
  if (result != static_cast<int32_t>(request.length_bytes)) return false;
  if (state.progress.advance(result) != RequestProgress::Verdict::kFinished) return false;
  state.result = state.progress.result();
  return true;
}

void AutoEngine::look_at_watched() {
  if (!watched_.active) return;
  watched_.active = false;
  if (home_.loop().counters().turns != watched_.turn + 1) return;
  const uint64_t arrivals = home_.loop().arrivals() - watched_.arrivals;
  const uint64_t own = own_arrivals_ - watched_.own;
  const uint64_t others = arrivals > own ? arrivals - own : 0;
  model_.observe_others(others, watched_.service_ns);
  model_.observe_regret(watched_.request, others, watched_.service_ns);
}

void AutoEngine::meter_wake(size_t requests) {
  if (wake_timer_in_ > requests) {
    wake_timer_in_ -= requests;
    return;
  }
  wake_timer_in_ =
      ++wake_timers_ < kFirstWakes ? kRequestsBetweenFirstWakes : kRequestsBetweenWakes;
  if (wake_timer_.is_armed()) return;
  wake_due_ns_ = home_.loop().now_ns() + kWakeAfterNs;
  wake_sleeps_ = home_.loop().counters().sleeps;
  wake_timer_.arm_at(wake_due_ns_);
}

void AutoEngine::on_wake_timer() {
  home_.assert_here();
  const int64_t late_ns = home_.loop().now_ns() - wake_due_ns_;
  // Only if the loop slept; and what is later than this did not wait for the wake alone.
  if (home_.loop().counters().sleeps == wake_sleeps_ || late_ns > kNotAWakeNs) return;
  model_.observe_wake(late_ns);
}

}  // namespace skiff::block
