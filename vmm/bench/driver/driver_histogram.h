// SPDX-License-Identifier: GPL-2.0-or-later
// DriverHistogram: how long requests took, in the buckets of loop::LatencyHistogram, so that what a
// payload guest has counted can be added to one without loss.
//
// Freestanding. Thread: one at a time. Ownership: a value type.
#pragma once

#include <cstddef>
#include <cstdint>

namespace skiff::vmm {

class DriverHistogram {
 public:
  static constexpr uint32_t kSubBits = 5;
  static constexpr uint32_t kMaxBits = 42;
  static constexpr size_t kBuckets = size_t{kMaxBits - kSubBits + 1} << kSubBits;

  void record(uint64_t latency_ns) {
    ++counts_[bucket_of(latency_ns)];
    ++count_;
    sum_ns_ += latency_ns;
    if (latency_ns > max_ns_) max_ns_ = latency_ns;
  }
  void merge(const DriverHistogram& other) {
    for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    sum_ns_ += other.sum_ns_;
    if (other.max_ns_ > max_ns_) max_ns_ = other.max_ns_;
  }

  uint64_t count() const { return count_; }
  uint64_t sum_ns() const { return sum_ns_; }
  uint64_t max_ns() const { return max_ns_; }
  uint64_t count_in(size_t bucket) const { return counts_[bucket]; }

  // Up to 63 one nanosecond wide; from there every 32 are twice as wide as the 32 before.
  static constexpr size_t bucket_of(uint64_t latency_ns) {
    constexpr uint64_t kMost = (uint64_t{1} << kMaxBits) - 1;
    const uint64_t capped = latency_ns < kMost ? latency_ns : kMost;
    if (capped < uint64_t{1} << kSubBits) return capped;
    const auto bits = static_cast<uint32_t>(64 - __builtin_clzll(capped));
    const uint32_t shift = bits - kSubBits - 1;
    return (size_t{shift} << kSubBits) + (capped >> shift);
  }
  static constexpr uint64_t highest_in(size_t bucket) {
    constexpr size_t kWide = size_t{2} << kSubBits;
    if (bucket < kWide) return bucket;
    const size_t shift = (bucket >> kSubBits) - 1;
    const uint64_t within = bucket - (shift << kSubBits);
    return ((within + 1) << shift) - 1;
  }

 private:
  uint64_t counts_[kBuckets] = {};
  uint64_t count_ = 0;
  uint64_t sum_ns_ = 0;
  uint64_t max_ns_ = 0;
};

}  // namespace skiff::vmm
