// SPDX-License-Identifier: GPL-2.0-or-later
// Random: numbers that are the same on every machine for the same seed (SplitMix64).
//
// The standard library's distributions may differ from one library to the next; an order that was
// printed, or a simulation, must not. Thread: one at a time. Ownership: a value type.
#pragma once

#include <cmath>
#include <cstdint>

namespace skiff::vmm {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
    return mixed ^ (mixed >> 31);
  }
  // 0 to `count` - 1; `count` is small beside 2^64, so that the bias is too.
  uint64_t below(uint64_t count) { return next() % count; }
  // More than 0, at most 1.
  double uniform() { return (static_cast<double>(next() >> 11) + 1) / 9007199254740992.0; }
  double exponential(double mean) { return -mean * std::log(uniform()); }

 private:
  uint64_t state_;
};

}  // namespace skiff::vmm
