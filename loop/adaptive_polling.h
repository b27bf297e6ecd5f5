// SPDX-License-Identifier: GPL-2.0-or-later
// AdaptivePolling: whether, and for how long, a loop that has nothing to do should look for work
// before it sleeps.
//
// Each source of events is judged for itself: by whether it lately came within the longest time
// that may be spun. So one that never comes soon takes nothing from the others, and the loop spins
// for as long as the most promising one deserves. A thread whose CPU
// others want does not spin.
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
    int64_t taken_ns = 0;  // Of spun_ns: the CPU was others'.
    int64_t now_ns = 0;    // At its end.
  };

  // A spin that stops for so long has lost its CPU: nothing in it takes as long.
  static constexpr int64_t kTakenNs = 20'000;

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

  // To and of all pollers. Those that have begun are looked at until the end.
  void begin();
  bool any_ready() const;
  void schedule_ready();
  bool end();

 private:
  struct Polled {
    Poller* poller;
    Source source;
    bool begun = false;
  };

  int64_t window_of(const Source& source) const;
  void judge(Source& source, const Idleness& idleness);
  void mind_others(const Idleness& idleness);

  int64_t max_ns_ = 0;
  std::array<Source, 3> fixed_{};
  std::vector<Polled> pollers_;
  bool looking_ = false;  // Some have begun.
  bool probe_ = false;    // The next time to the full: doubts have to be settled.

  int64_t spun_ns_ = 0;  // Since it was last judged who needs the CPU, and what others took of it.
  int64_t taken_ns_ = 0;
  int64_t keep_off_ns_ = 0;    // How long it was kept off, the last time.
  int64_t not_before_ns_ = 0;  // Until then the CPU is needed elsewhere.
};

}  // namespace skiff::loop
