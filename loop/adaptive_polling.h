// SPDX-License-Identifier: GPL-2.0-or-later
// AdaptivePolling: whether, and for how long, a loop that has nothing to do should look for work
// before it sleeps.
//
// Each source of events is judged for itself: by whether it lately came within the longest time
// that may be spun. So one that never comes soon takes nothing from the others, and the loop spins
// for as long as the most promising one deserves. A thread that is often preempted does not spin.
// Thread: the loop's. Ownership: owned by the loop's state; borrows the pollers.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "loop/event_loop.h"

namespace skiff::loop {

class AdaptivePolling {
 public:
  struct Source {
    bool came = false;     // Ended the present idleness; set by the loop before learn().
    int32_t score = 0;     // Of the last times, how many more came soon than did not.
    int64_t reach_ns = 0;  // How long it lately took when it came soon.
    uint32_t doubts = 0;  // Times that it might have been soon, but for the wake that came between.
  };

  // How a time without anything to do went.
  struct Idleness {
    int64_t lasted_ns = 0;
    int64_t spun_ns = 0;
    int64_t now_ns = 0;  // At its end.
  };

  // How often the calling thread was preempted since it began.
  using CountPreemptions = int64_t (*)();
  explicit AdaptivePolling(CountPreemptions count_preemptions = &preemptions_of_this_thread);

  void set_max_ns(int64_t max_ns) { max_ns_ = max_ns; }
  bool enabled() const { return max_ns_ > 0; }
  void add(Poller& poller);
  void remove(Poller& poller);
  bool has_pollers() const { return !pollers_.empty(); }

  Source& mail() { return fixed_[0]; }
  Source& completions() { return fixed_[1]; }
  Source& descriptors() { return fixed_[2]; }

  // How long to spin now; 0: not at all.
  int64_t window_ns(int64_t now_ns) const;
  void forget_what_came();
  void note_ready();  // Pollers with work have come.
  void learn(const Idleness& idleness);

  // To and of all pollers.
  void begin();
  bool any_ready() const;
  bool end();

 private:
  struct Polled {
    Poller* poller;
    Source source;
  };

  static int64_t preemptions_of_this_thread();
  int64_t window_of(const Source& source) const;
  void judge(Source& source, const Idleness& idleness);
  void mind_preemptions(const Idleness& idleness);

  const CountPreemptions count_preemptions_;
  int64_t max_ns_ = 0;
  std::array<Source, 3> fixed_{};
  std::vector<Polled> pollers_;
  bool probe_ = false;  // The next time to the full: doubts have to be settled.

  int64_t preemptions_ = 0;  // At the last look.
  int64_t looked_ns_ = 0;
  int64_t not_before_ns_ = 0;  // Until then the CPU is needed elsewhere.
};

}  // namespace skiff::loop
