// SPDX-License-Identifier: GPL-2.0-or-later
// The time stamp counter as a clock, and its ticks as nanoseconds.
//
// Freestanding: also compiled for the payload guest, without a library and without floating point.
// Thread: any. Ownership: a value type.
#pragma once

#include <cstdint>

namespace skiff::vmm {

inline uint64_t tick_now() { return __builtin_ia32_rdtsc(); }

class TickScale {
 public:
  // `khz`: ticks in a millisecond; not 0.
  constexpr explicit TickScale(uint64_t khz)
      : khz_(khz), ns_per_tick_((kNsPerMs << 32) / khz), ticks_per_ns_((khz << 32) / kNsPerMs) {}

  constexpr uint64_t khz() const { return khz_; }
  constexpr uint64_t ticks_per_second() const { return khz_ * 1000; }
  constexpr uint64_t to_ns(uint64_t ticks) const { return scale(ticks, ns_per_tick_); }
  constexpr uint64_t to_ticks(uint64_t ns) const { return scale(ns, ticks_per_ns_); }

 private:
  __extension__ using Wide = unsigned __int128;
  static constexpr uint64_t kNsPerMs = 1'000'000;
  static constexpr uint64_t scale(uint64_t value, uint64_t factor) {
    return static_cast<uint64_t>(Wide{value} * factor >> 32);
  }

  uint64_t khz_;
  uint64_t ns_per_tick_;   // In 2^-32.
  uint64_t ticks_per_ns_;  // In 2^-32.
};

}  // namespace skiff::vmm
