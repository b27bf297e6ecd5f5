// SPDX-License-Identifier: GPL-2.0-or-later
// RatePacer: when the requests of a stream of fixed rate are meant to start.
//
// Latencies are counted from here and not from when a request could be sent, so that a disk that
// stalls is charged for all who had to wait meanwhile ("coordinated omission"). Exact over any
// time: nothing is lost to rounding. Thread: one at a time. Ownership: a value type.
#pragma once

#include <cstdint>

namespace skiff::vmm {

class RatePacer {
 public:
  // `requests` in `period_ns`, evenly, the first at `first_ns`.
  RatePacer(uint64_t requests, uint64_t period_ns, int64_t first_ns)
      : requests_(requests),
        whole_ns_(static_cast<int64_t>(period_ns / requests)),
        rest_(period_ns % requests),
        next_ns_(first_ns) {}

  int64_t next_ns() const { return next_ns_; }
  void take() {
    next_ns_ += whole_ns_;
    left_over_ += rest_;
    if (left_over_ < requests_) return;
    left_over_ -= requests_;
    ++next_ns_;
  }
  // How many were meant to start before `end_ns` and have not been taken; to one request.
  uint64_t missed_before(int64_t end_ns) const {
    if (end_ns <= next_ns_) return 0;
    const double interval_ns = static_cast<double>(whole_ns_) +
                               static_cast<double>(rest_) / static_cast<double>(requests_);
    return static_cast<uint64_t>(static_cast<double>(end_ns - next_ns_ - 1) / interval_ns) + 1;
  }

 private:
  uint64_t requests_;
  int64_t whole_ns_;
  uint64_t rest_;
  uint64_t left_over_ = 0;
  int64_t next_ns_;
};

}  // namespace skiff::vmm
