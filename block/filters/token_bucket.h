// SPDX-License-Identifier: GPL-2.0-or-later
// TokenBucket: a rate with a burst, shared by any number of threads without a lock.
//
// One atomic says until when everything granted so far is paid for. Whoever comes moves it on by
// the cost of his request and may go when what came before him is paid: first come, first served,
// and no request is too large to ever go. Thread: any. Ownership: a value that stays in place.
#pragma once

#include <atomic>
#include <cstdint>

namespace skiff::block {

class TokenBucket {
 public:
  // Units a second, 0: no limit. `burst` units may go at once after a pause; 0: a hundredth of a
  // second's worth, which makes up for late timers. Thread: before the others come.
  void set(uint64_t rate, uint64_t burst);
  bool is_limiting() const { return rate_ != 0; }
  // When this may go: `now_ns` or earlier is at once. It counts from then on, whatever happens.
  int64_t take(uint64_t units, int64_t now_ns);

 private:
  // In sixteenths of a nanosecond: rates of a few gigabytes a second stay exact to a thousandth.
  int64_t cost(uint64_t units) const;

  uint64_t rate_ = 0;
  int64_t burst_ = 0;
  std::atomic<int64_t> paid_until_{0};
};

}  // namespace skiff::block
