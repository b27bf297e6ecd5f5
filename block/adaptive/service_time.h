// SPDX-License-Identifier: GPL-2.0-or-later
// ServiceTime: how long something takes lately: mean, deviation, tail and the fastest.
//
// Older times count ever less, so that a file that changes its mind is believed. Thread: one at a
// time. Ownership: a value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace skiff::block {

class ServiceTime {
 public:
  void record(int64_t time_ns);
  // Halves what is known of rare times: for what is tried so seldom that it would keep the memory
  // of one bad moment for very long.
  void forget_rare();

  uint64_t count() const { return count_; }
  // The rest is 0 before the first record().
  int64_t mean_ns() const { return static_cast<int64_t>(mean_ns_); }
  // What one costs on average: the mean, and its share of the rare times that are far from it.
  int64_t cost_ns() const { return static_cast<int64_t>(mean_ns_ + excess_ns_); }
  int64_t deviation_ns() const { return static_cast<int64_t>(deviation_ns_); }
  // What 99 of 100 do not exceed; while there are few, the mean and four deviations.
  int64_t tail_ns() const;
  int64_t fastest_ns() const { return static_cast<int64_t>(fastest_ns_); }

 private:
  // Two buckets to each power of two, up to 4 s.
  static constexpr size_t kBuckets = 64;
  static size_t bucket_of(int64_t time_ns);
  static int64_t highest_in(size_t bucket);
  void count_in_histogram(int64_t time_ns);
  void halve_histogram();

  uint64_t count_ = 0;
  double mean_ns_ = 0;
  double deviation_ns_ = 0;
  double excess_ns_ = 0;
  double fastest_ns_ = 0;
  uint32_t in_histogram_ = 0;
  std::array<uint16_t, kBuckets> histogram_{};
};

}  // namespace skiff::block
