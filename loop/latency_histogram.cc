// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace skiff::loop {

// Buckets 0 to 63 are one nanosecond wide; from there every 32 are twice as wide as the 32 before.
size_t LatencyHistogram::bucket_of(uint64_t latency_ns) {
  const uint64_t capped = std::min(latency_ns, (uint64_t{1} << kMaxBits) - 1);
  if (capped < kSubBuckets) return capped;
  const auto bits = static_cast<uint32_t>(std::bit_width(capped));
  const uint32_t shift = bits - kSubBits - 1;
  return size_t{shift} * kSubBuckets + (capped >> shift);
}

int64_t LatencyHistogram::highest_in(size_t bucket) {
  if (bucket < 2 * size_t{kSubBuckets}) return static_cast<int64_t>(bucket);
  const size_t shift = bucket / kSubBuckets - 1;
  const uint64_t within = bucket - shift * kSubBuckets;
  return static_cast<int64_t>(((within + 1) << shift) - 1);
}

void LatencyHistogram::record(int64_t latency_ns) { record_many(latency_ns, 1); }

void LatencyHistogram::record_many(int64_t latency_ns, uint64_t times) {
  if (times == 0) return;
  const int64_t positive_ns = std::max<int64_t>(0, latency_ns);
  counts_[bucket_of(static_cast<uint64_t>(positive_ns))] += times;
  count_ += times;
  sum_ns_ += static_cast<double>(positive_ns) * static_cast<double>(times);
  max_ns_ = std::max(max_ns_, positive_ns);
}

void LatencyHistogram::merge(const LatencyHistogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ns_ += other.sum_ns_;
  max_ns_ = std::max(max_ns_, other.max_ns_);
}

double LatencyHistogram::mean_ns() const {
  return count_ == 0 ? 0 : sum_ns_ / static_cast<double>(count_);
}

int64_t LatencyHistogram::percentile_ns(double percent) const {
  if (count_ == 0) return 0;
  const double wanted =
      std::ceil(std::clamp(percent, 0.0, 100.0) / 100 * static_cast<double>(count_));
  const auto rank = std::max<uint64_t>(1, static_cast<uint64_t>(wanted));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::min(highest_in(i), max_ns_);
  }
  return max_ns_;
}

std::vector<LatencyHistogram::Bucket> LatencyHistogram::buckets() const {
  std::vector<Bucket> filled;
  for (size_t i = 0; i < kBuckets; ++i)
    if (counts_[i] != 0) filled.push_back({std::min(highest_in(i), max_ns_), counts_[i]});
  return filled;
}

}  // namespace skiff::loop
