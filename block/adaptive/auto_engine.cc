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
#include "loop/clock.h"
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

uint32_t AutoEngine::handed_over_now() const {
  return pool_->in_flight() + (ring_ != nullptr ? ring_->in_flight() : 0);
}

CostModel::Request AutoEngine::facts(const IoRequest& request, uint32_t depth) {
  return {
      .op = request.op, .fua = request.fua, .length_bytes = request.length_bytes, .depth = depth};
}

void AutoEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  meter_wake(batch.size());
  const auto depth = in_flight() + static_cast<uint32_t>(batch.size());
  for (IoRequest* request : batch) {
    const CostModel::Request its = facts(*request, depth);
    const CostModel::Choice choice = model_.choose(its);
    const int32_t refusal = refusal_of(request->op, request->offset_bytes, request->length_bytes);
    if (choice.mode != ServiceMode::kInline || refusal != 0) {
      hand_over(*request, its, choice);
      continue;
    }
    IoInFlight::Chosen& chosen = request->in_flight.chosen;
    chosen.depth = depth;
    chosen.measure = choice.measure;
    chosen.explored = choice.explored;
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
  if (choice.measure) {
    IoInFlight::Chosen& chosen = request.in_flight.chosen;
    chosen.chooser = this;
    chosen.done = std::exchange(request.done, &AutoEngine::on_measured);
    chosen.depth = its.depth;
    chosen.on_pool = to_pool;
    chosen.start_ns = home_.loop().now_ns();
    chosen.arrivals = home_.loop().arrivals();
    chosen.completed = completed();
  }
  ++handed_over_;
  IoRequest* one = &request;
  engine.submit({&one, 1});
  if (!choice.watch_submit || to_pool) return;
  const int64_t start_ns = home_.loop().now_ns();
  home_.loop().submit_sqes();
  model_.submit_took(home_.loop().now_ns() - start_ns);
}

void AutoEngine::on_measured(IoRequest& request, int32_t result) {
  auto& self = *static_cast<AutoEngine*>(request.in_flight.chosen.chooser);
  self.home_.assert_here();
  self.measured(request);
  request.done(request, result);  // The engine may be gone after it.
}

void AutoEngine::measured(IoRequest& request) {
  const IoInFlight::Chosen& chosen = request.in_flight.chosen;
  request.done = chosen.done;
  const int64_t latency_ns = home_.loop().now_ns() - chosen.start_ns;
  const CostModel::Request its = facts(request, chosen.depth);
  const uint64_t arrivals = home_.loop().arrivals() - chosen.arrivals;
  const uint64_t own = completed() - chosen.completed;
  model_.observe_others(arrivals > own ? arrivals - own : 0, latency_ns);
  if (CostModel::may_be_inline(its))
    model_.async_done(its, chosen.on_pool ? ServiceMode::kPool : ServiceMode::kRingAsync,
                      latency_ns);
}

void AutoEngine::serve_waiting() {
  home_.assert_here();
  look_at_watched();
  int64_t held_ns = 0;
  // Not those that these submit in their turn, and no more than others can wait for.
  uint32_t left = waiting_count_;
  while (left-- > 0) {
    IoRequest& request = waiting_.pop_front();
    const CostModel::Request its = facts(request, request.in_flight.chosen.depth);
    held_ns += std::max(model_.inline_ns(its), kCallAtLeastNs);
    const int64_t most_ns = model_.is_shared(its) ? kSharedTurnNs : kTurnNs;
    if (held_ns >= most_ns) left = 0;
    // After the last one's completion the engine may be gone.
    const bool last = in_flight() == 1;
    if (left == 0 && waiting_count_ > 1) serve_bh_.schedule();
    if (serve(request) && last) return;
  }
}

bool AutoEngine::must_not_block(const CostModel::Request& its) const {
  if (model_.inline_ns(its) < kNoMatterNs) return false;
  return !model_.fits_before(its, home_.loop().now_ns(), home_.loop().next_deadline_ns());
}

bool AutoEngine::serve(IoRequest& request) {
  const IoInFlight::Chosen& chosen = request.in_flight.chosen;
  // Itself included: it is still counted as waiting.
  const CostModel::Request its = facts(request, in_flight());
  const bool second_thoughts =
      !chosen.explored && its.depth != chosen.depth && !model_.still_inline(its);
  --waiting_count_;
  if (second_thoughts || must_not_block(its) || !call(request)) {
    const bool alone = its.depth == 1;
    CostModel::Choice choice;
    choice.mode = ring_ == nullptr ? ServiceMode::kPool
                  : alone          ? ServiceMode::kRingWait
                                   : ServiceMode::kRingAsync;
    hand_over(request, its, choice);
    return false;
  }
  request.done(request, request.in_flight.result);
  return true;
}

bool AutoEngine::call(IoRequest& request) {
  IoInFlight& state = request.in_flight;
  const CostModel::Request its = facts(request, state.chosen.depth);
  const bool measure = state.chosen.measure;
  const int64_t start_ns = measure ? home_.loop().now_ns() : 0;
  state.progress.begin(request.op, request.offset_bytes, request.length_bytes, request.iov);
  bool missed = false;
  if (nowait_) {
    state.progress.next_step(state.step);
    const int32_t result = perform_step(target_.fd, state.step, RWF_NOWAIT);
    // Whatever is not simply done is asked for once more, where it may take its time.
    missed = result != static_cast<int32_t>(request.length_bytes) ||
             state.progress.advance(result) != RequestProgress::Verdict::kFinished;
  } else {
    state.result = run_blocking(target_, request, NullWait::kSpinIfShort);
  }
  const int64_t service_ns = measure ? home_.loop().now_ns() - start_ns : 0;
  if (missed) {
    AdaptiveCounters::add(counters_.nowait_misses);
    if (measure) model_.inline_missed(its, service_ns);
    return false;
  }
  AdaptiveCounters::add(counters_.inline_calls);
  if (nowait_) state.result = state.progress.result();
  if (!measure) return true;
  model_.inline_done(its, service_ns);
  watched_ = {.request = its,
              .service_ns = service_ns,
              .turn = home_.loop().counters().turns,
              .arrivals = home_.loop().arrivals(),
              .completed = completed(),
              .active = true};
  serve_bh_.schedule();  // To see in the next turn what came meanwhile.
  return true;
}

void AutoEngine::look_at_watched() {
  if (!watched_.active) return;
  watched_.active = false;
  if (home_.loop().counters().turns != watched_.turn + 1) return;
  const uint64_t arrivals = home_.loop().arrivals() - watched_.arrivals;
  const uint64_t own = completed() - watched_.completed;
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
