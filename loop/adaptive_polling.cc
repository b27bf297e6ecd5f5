// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/adaptive_polling.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/event_loop.h"

namespace skiff::loop {
namespace {

// A source that was worth it 8 times more often than not may fail as often before it is given up.
constexpr int32_t kMaxScore = 8;
constexpr int64_t kLeastNs = 2'000;
// When it slept, the loop knows only when it was up again. A time this much longer than what may be
// spun can have been the wake's.
constexpr int64_t kWakeAtMostNs = 64'000;
constexpr uint32_t kDoubtsToProbe = 8;

// Somebody else who wants this CPU all the time gets half of it. Whoever wants it for moments only,
// or at a low priority, gets less, and is not in anybody's way.
constexpr int64_t kJudgeAfterSpinningNs = 20'000'000;
constexpr int64_t kTakenPart = 4;
constexpr int64_t kKeepOffLeastNs = 100'000'000;
constexpr int64_t kKeepOffMostNs = 1'600'000'000;

}  // namespace

void AdaptivePolling::add(Poller& poller) { pollers_.push_back({.poller = &poller, .source = {}}); }

void AdaptivePolling::remove(Poller& poller) {
  const auto removed =
      std::erase_if(pollers_, [&](const Polled& polled) { return polled.poller == &poller; });
  SKIFF_CHECK(removed == 1);
}

int64_t AdaptivePolling::window_of(const Source& source) const {
  if (source.score <= 0) return 0;
  // Twice: the next one will not take just as long.
  return std::min(max_ns_, std::max(kLeastNs, 2 * source.reach_ns));
}

int64_t AdaptivePolling::window_ns(int64_t now_ns) const {
  if (now_ns < not_before_ns_) return 0;
  if (probe_) return max_ns_;
  int64_t window_ns = 0;
  for (const Source& source : fixed_) window_ns = std::max(window_ns, window_of(source));
  for (const Polled& polled : pollers_) window_ns = std::max(window_ns, window_of(polled.source));
  return window_ns;
}

void AdaptivePolling::forget_what_came() {
  for (Source& source : fixed_) source.came = false;
  for (Polled& polled : pollers_) polled.source.came = false;
}

void AdaptivePolling::note_ready() {
  for (Polled& polled : pollers_) polled.source.came |= polled.poller->is_ready();
}

void AdaptivePolling::learn(const Idleness& idleness) {
  if (idleness.spun_ns > 0) {
    probe_ = false;
    mind_others(idleness);
  }
  if (idleness.now_ns < not_before_ns_) return;
  for (Source& source : fixed_) judge(source, idleness);
  for (Polled& polled : pollers_) judge(polled.source, idleness);
}

void AdaptivePolling::judge(Source& source, const Idleness& idleness) {
  if (source.came && idleness.lasted_ns <= max_ns_) {
    source.score = std::min(source.score + 1, kMaxScore);
    source.reach_ns = std::max(idleness.lasted_ns, source.reach_ns - source.reach_ns / 8);
    source.doubts = 0;
    return;
  }
  // It had its time and did not come. With less than that, because another came or a timer was due,
  // nothing is known of it.
  if (source.score > 0 && idleness.spun_ns >= window_of(source)) --source.score;
  if (!source.came || idleness.lasted_ns > max_ns_ + kWakeAtMostNs) return;
  if (++source.doubts < kDoubtsToProbe) return;
  source.doubts = 0;
  probe_ = true;
}

void AdaptivePolling::mind_others(const Idleness& idleness) {
  spun_ns_ += idleness.spun_ns;
  taken_ns_ += idleness.taken_ns;
  if (spun_ns_ < kJudgeAfterSpinningNs) return;
  const bool wanted_by_others = taken_ns_ > spun_ns_ / kTakenPart;
  spun_ns_ = 0;
  taken_ns_ = 0;
  keep_off_ns_ =
      wanted_by_others ? std::clamp(2 * keep_off_ns_, kKeepOffLeastNs, kKeepOffMostNs) : 0;
  if (!wanted_by_others) return;
  for (Source& source : fixed_) source = {};
  for (Polled& polled : pollers_) polled.source = {};
  not_before_ns_ = idleness.now_ns + keep_off_ns_;
}

void AdaptivePolling::begin() {
  for (Polled& polled : pollers_)
    if (!std::exchange(polled.begun, true)) polled.poller->begin_polling();
  looking_ = !pollers_.empty();
}

bool AdaptivePolling::any_ready() const {
  return std::any_of(pollers_.begin(), pollers_.end(),
                     [](const Polled& polled) { return polled.poller->is_ready(); });
}

void AdaptivePolling::schedule_ready() {
  if (!looking_) return;
  for (const Polled& polled : pollers_)
    if (polled.begun && polled.poller->is_ready()) polled.poller->schedule_work();
}

bool AdaptivePolling::end() {
  if (!std::exchange(looking_, false)) return false;
  bool work = false;
  for (Polled& polled : pollers_)
    if (std::exchange(polled.begun, false)) work |= polled.poller->end_polling();
  return work;
}

}  // namespace skiff::loop
