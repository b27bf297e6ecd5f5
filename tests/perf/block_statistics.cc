// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/perf/block_statistics.h"

#include <algorithm>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

namespace skiff::perf {
namespace {

constexpr size_t kResamples = 2000;

double ratio(std::span<const double> one, std::span<const double> other) {
  const double base = median_of(other);
  return base > 0 ? median_of(one) / base : 0;
}

}  // namespace

double median_of(std::span<const double> values) {
  if (values.empty()) return 0;
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

Interval ratio_interval(std::span<const double> one, std::span<const double> other) {
  const size_t rounds = std::min(one.size(), other.size());
  if (rounds == 0) return {};
  std::mt19937 random(20231120);
  std::uniform_int_distribution<size_t> any(0, rounds - 1);
  std::vector<double> ratios;
  std::vector<double> some(rounds);
  std::vector<double> same(rounds);
  for (size_t i = 0; i < kResamples; ++i) {
    for (size_t k = 0; k < rounds; ++k) {
      const size_t round = any(random);
      some[k] = one[round];
      same[k] = other[round];
    }
    ratios.push_back(ratio(some, same));
  }
  std::ranges::sort(ratios);
  return {ratio(one.first(rounds), other.first(rounds)), ratios[kResamples / 40],
          ratios[kResamples - 1 - kResamples / 40]};
}

}  // namespace skiff::perf
