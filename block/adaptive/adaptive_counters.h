// SPDX-License-Identifier: GPL-2.0-or-later
// AdaptiveCounters: what an engine that chooses has chosen, and why it changed its mind.
//
// Thread: written by the engine's home, read by any. Ownership: the engine's.
#pragma once

#include <atomic>
#include <cstdint>

namespace skiff::block {

struct AdaptiveCounters {
  using Counter = std::atomic<uint64_t>;

  // Requests by how they were served.
  Counter inline_calls{0};   // M0: a blocking system call on the loop's own thread.
  Counter ring_waits{0};     // M1: alone on the ring.
  Counter ring_asyncs{0};    // M2: one of several on the ring.
  Counter pool_calls{0};     // M3: on a worker.
  Counter nowait_misses{0};  // M0 with RWF_NOWAIT that would have blocked; then M1 to M3.
  Counter explored{0};       // Of all these, to learn what the other way costs.

  Counter revisions{0};      // How often a choice was changed.
  Counter regrets{0};        // How often M0 was switched off because others waited for too long.
  Counter submit_stalls{0};  // Submissions that blocked, though they should not.
  Counter regret_ns{0};      // How long others waited in calls that were watched (about one in 8).

  // The present beliefs.
  Counter others_per_s{0};  // What else comes to this loop.
  Counter wake_ns{0};       // How late the loop wakes from sleep.

  // For counters that one thread writes and others read.
  static void add(Counter& counter, uint64_t more = 1) {
    counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
};

// A reading of the counters, or the sum of several engines'.
struct AdaptiveTotals {
  uint64_t inline_calls = 0;
  uint64_t ring_waits = 0;
  uint64_t ring_asyncs = 0;
  uint64_t pool_calls = 0;
  uint64_t nowait_misses = 0;
  uint64_t explored = 0;
  uint64_t revisions = 0;
  uint64_t regrets = 0;
  uint64_t submit_stalls = 0;

  // Requests, each once.
  uint64_t requests() const { return inline_calls + ring_waits + ring_asyncs + pool_calls; }
  void add(const AdaptiveTotals& more) {
    inline_calls += more.inline_calls;
    ring_waits += more.ring_waits;
    ring_asyncs += more.ring_asyncs;
    pool_calls += more.pool_calls;
    nowait_misses += more.nowait_misses;
    explored += more.explored;
    revisions += more.revisions;
    regrets += more.regrets;
    submit_stalls += more.submit_stalls;
  }
  void add(const AdaptiveCounters& more) { add(totals_of(more)); }

  static AdaptiveTotals totals_of(const AdaptiveCounters& counters) {
    const auto read = [](const AdaptiveCounters::Counter& counter) {
      return counter.load(std::memory_order_relaxed);
    };
    return {.inline_calls = read(counters.inline_calls),
            .ring_waits = read(counters.ring_waits),
            .ring_asyncs = read(counters.ring_asyncs),
            .pool_calls = read(counters.pool_calls),
            .nowait_misses = read(counters.nowait_misses),
            .explored = read(counters.explored),
            .revisions = read(counters.revisions),
            .regrets = read(counters.regrets),
            .submit_stalls = read(counters.submit_stalls)};
  }
};

}  // namespace skiff::block
