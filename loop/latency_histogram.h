// SPDX-License-Identifier: GPL-2.0-or-later
// LatencyHistogram: how often something took how long, in buckets that are finer for shorter times.
//
// Each power of two is cut into 32, so that a percentile is at most 1/32 above the true value; up
// to 63 ns it is exact. Times beyond 2^42 ns (73 minutes) count as that. Fixed size (9.5 KiB).
// Thread: one at a time; merge() the histograms of several. Ownership: a value type.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace skiff::loop {

class LatencyHistogram {
 public:
  void record(int64_t latency_ns);  // O(1), no allocation; below 0 counts as 0.
  // The same for `times` of them at once.
  void record_many(int64_t latency_ns, uint64_t times);
  void merge(const LatencyHistogram& other);
  void clear() { *this = LatencyHistogram(); }

  uint64_t count() const { return count_; }
  int64_t max_ns() const { return max_ns_; }  // Exact. 0 when empty, as the rest.
  double mean_ns() const;                     // Of the recorded times themselves.
  // The least time that `percent` (0 to 100) of the recorded ones do not exceed.
  int64_t percentile_ns(double percent) const;

  // Those that hold something, the shortest times first. To carry it elsewhere: recording each
  // `up_to_ns` `count` times gives the same percentiles, and a mean at most 1/32 above.
  struct Bucket {
    int64_t up_to_ns = 0;  // The longest time that counts here, or the longest that was seen.
    uint64_t count = 0;
  };
  std::vector<Bucket> buckets() const;

 private:
  friend class LiveHistogram;  // The same buckets.

  static constexpr uint32_t kSubBits = 5;
  static constexpr uint32_t kSubBuckets = 1U << kSubBits;
  static constexpr uint32_t kMaxBits = 42;
  static constexpr size_t kBuckets = size_t{kMaxBits - kSubBits + 1} * kSubBuckets;

  static size_t bucket_of(uint64_t latency_ns);
  static int64_t highest_in(size_t bucket);

  std::array<uint64_t, kBuckets> counts_{};
  uint64_t count_ = 0;
  double sum_ns_ = 0;
  int64_t max_ns_ = 0;
};

}  // namespace skiff::loop
