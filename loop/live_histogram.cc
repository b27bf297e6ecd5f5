// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/live_histogram.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "loop/latency_histogram.h"

namespace skiff::loop {
namespace {

void add(std::atomic<uint64_t>& to, uint64_t amount) {
  to.store(to.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace

void LiveHistogram::record(int64_t latency_ns, uint64_t times) {
  const auto positive_ns = static_cast<uint64_t>(std::max<int64_t>(0, latency_ns));
  add(counts_[LatencyHistogram::bucket_of(positive_ns)], times);
  add(sum_ns_, positive_ns * times);
  if (latency_ns > max_ns_.load(std::memory_order_relaxed))
    max_ns_.store(latency_ns, std::memory_order_relaxed);
}

LatencyHistogram LiveHistogram::snapshot() const {
  LatencyHistogram copy;
  for (size_t i = 0; i < counts_.size(); ++i) {
    copy.counts_[i] = counts_[i].load(std::memory_order_relaxed);
    copy.count_ += copy.counts_[i];
  }
  copy.sum_ns_ = static_cast<double>(sum_ns_.load(std::memory_order_relaxed));
  copy.max_ns_ = max_ns_.load(std::memory_order_relaxed);
  return copy;
}

}  // namespace skiff::loop
