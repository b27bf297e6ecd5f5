// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/adaptive_polling.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <utility>

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

constexpr int64_t kLookEveryNs = 20'000'000;
constexpr int64_t kKeepOffNs = 100'000'000;
// A thread that has a CPU for itself is preempted a few times a second.
constexpr int64_t kPreemptionsPerSecond = 100;

}  // namespace

AdaptivePolling::AdaptivePolling(CountPreemptions count_preemptions)
    : count_preemptions_(count_preemptions) {}

int64_t AdaptivePolling::preemptions_of_this_thread() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

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
    mind_preemptions(idleness);
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

void AdaptivePolling::mind_preemptions(const Idleness& idleness) {
  const int64_t elapsed_ns = idleness.now_ns - looked_ns_;
  if (elapsed_ns < kLookEveryNs) return;
  const int64_t before = std::exchange(preemptions_, count_preemptions_());
  const bool first = std::exchange(looked_ns_, idleness.now_ns) == 0;
  const int64_t more = preemptions_ - before;
  if (first || more < 2 || more < elapsed_ns * kPreemptionsPerSecond / 1'000'000'000) return;
  for (Source& source : fixed_) source = {};
  for (Polled& polled : pollers_) polled.source = {};
  not_before_ns_ = idleness.now_ns + kKeepOffNs;
}

void AdaptivePolling::begin() {
  for (const Polled& polled : pollers_) polled.poller->begin_polling();
}

bool AdaptivePolling::any_ready() const {
  return std::any_of(pollers_.begin(), pollers_.end(),
                     [](const Polled& polled) { return polled.poller->is_ready(); });
}

bool AdaptivePolling::end() {
  bool work = false;
  for (const Polled& polled : pollers_) work |= polled.poller->end_polling();
  return work;
}

}  // namespace skiff::loop
