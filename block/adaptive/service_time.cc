// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/adaptive/service_time.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace skiff::block {
namespace {

constexpr double kNewest = 1.0 / 8;
// One time that is longer says that this thread was not running rather than what the file is like.
// In the mean it counts as so many times the mean: a file that has become slow says so again. What
// is above goes into an average of its own, over so many and for so long that one does not matter.
constexpr double kOutlier = 4;
constexpr double kExcessNewest = 1.0 / 512;
constexpr double kExcessOverNs = 20e6;
constexpr uint64_t kSettled = 8;
// The first may be such times, with nothing to compare them with until a short one comes.
constexpr double kFirstOutlier = 8;
constexpr uint32_t kHistogramFull = 1024;
constexpr uint32_t kEnoughForTail = 128;
// How fast the fastest is forgotten.
constexpr double kFastestDrift = 1.0 / 256;

}  // namespace

void ServiceTime::record(int64_t time_ns) {
  time_ns = std::max<int64_t>(time_ns, 1);
  count_in_histogram(time_ns);
  auto time = static_cast<double>(time_ns);
  fastest_ns_ =
      count_ == 0 || time < fastest_ns_ ? time : fastest_ns_ + (time - fastest_ns_) * kFastestDrift;
  if (count_ < kSettled && count_ > 0 && time * kFirstOutlier < mean_ns_) {
    count_ = 0;  // What came before was not it.
    deviation_ns_ = 0;
  }
  if (count_ >= kSettled) {
    const double usual = std::min(time, mean_ns_ * kOutlier);
    excess_ns_ += (time - usual - excess_ns_) * std::min(kExcessNewest, mean_ns_ / kExcessOverNs);
    time = usual;
  }
  ++count_;
  const double share = std::max(kNewest, 1.0 / static_cast<double>(count_));
  const double error = time - mean_ns_;
  mean_ns_ += error * share;
  if (count_ > 1) deviation_ns_ += (std::abs(error) - deviation_ns_) * share;
}

int64_t ServiceTime::tail_ns() const {
  if (in_histogram_ < kEnoughForTail) return static_cast<int64_t>(mean_ns_ + 4 * deviation_ns_);
  uint32_t above = in_histogram_ / 100;
  for (size_t bucket = kBuckets; bucket-- > 0;) {
    if (histogram_[bucket] > above) return highest_in(bucket);
    above -= histogram_[bucket];
  }
  return 0;
}

size_t ServiceTime::bucket_of(int64_t time_ns) {
  const auto time = static_cast<uint64_t>(time_ns);
  const auto octave = static_cast<size_t>(std::bit_width(time)) - 1;
  const size_t half = octave == 0 ? 0 : (time >> (octave - 1)) & 1;
  return std::min(octave * 2 + half, kBuckets - 1);
}

int64_t ServiceTime::highest_in(size_t bucket) {
  const int64_t octave_ns = int64_t{1} << (bucket / 2);
  return bucket % 2 == 0 ? octave_ns + octave_ns / 2 : octave_ns * 2;
}

void ServiceTime::count_in_histogram(int64_t time_ns) {
  ++histogram_[bucket_of(time_ns)];
  if (++in_histogram_ >= kHistogramFull) halve_histogram();
}

void ServiceTime::forget_rare() {
  excess_ns_ /= 2;
  halve_histogram();
}

void ServiceTime::halve_histogram() {
  in_histogram_ = 0;
  for (uint16_t& count : histogram_) {
    count = static_cast<uint16_t>(count / 2);
    in_histogram_ += count;
  }
}

}  // namespace skiff::block
