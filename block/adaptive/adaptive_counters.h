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

}  // namespace skiff::block
