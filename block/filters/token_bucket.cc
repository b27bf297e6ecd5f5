// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/token_bucket.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace skiff::block {
namespace {

constexpr int64_t kTicksPerNs = 16;
constexpr int64_t kTicksPerSecond = kTicksPerNs * 1'000'000'000;
// Some years: no sum of a few of them overflows.
constexpr int64_t kCostMax = int64_t{1} << 60;

}  // namespace

void TokenBucket::set(uint64_t rate, uint64_t burst) {
  rate_ = rate;
  burst_ = burst == 0 || rate == 0 ? kTicksPerSecond / 100 : cost(burst);
}

int64_t TokenBucket::cost(uint64_t units) const {
  __extension__ using Wide = unsigned __int128;
  const Wide ticks = Wide{units} * static_cast<uint64_t>(kTicksPerSecond) / rate_;
  return static_cast<int64_t>(std::min<Wide>(ticks, static_cast<uint64_t>(kCostMax)));
}

int64_t TokenBucket::take(uint64_t units, int64_t now_ns) {
  const int64_t earliest = now_ns * kTicksPerNs - burst_;
  const int64_t price = cost(units);
  int64_t paid = paid_until_.load(std::memory_order_relaxed);
  int64_t start = 0;
  do {
    start = std::max(paid, earliest);
    if (start > INT64_MAX - price) return INT64_MAX / kTicksPerNs;  // Never, as far as we live.
  } while (!paid_until_.compare_exchange_weak(paid, start + price, std::memory_order_relaxed));
  // Rounded up: a timer that is early by a fraction would come twice.
  return start > 0 ? (start + kTicksPerNs - 1) / kTicksPerNs : 0;
}

}  // namespace skiff::block
