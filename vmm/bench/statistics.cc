// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/statistics.h"

#include <algorithm>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

namespace skiff::vmm {
namespace {

constexpr size_t kResamples = 2000;
constexpr std::mt19937::result_type kSeed = 20231120;

double ratio(std::span<const double> one, std::span<const double> other) {
  const double base = median_of(other);
  return base > 0 ? median_of(one) / base : 0;
}

Interval around(double middle, std::vector<double> drawn) {
  std::ranges::sort(drawn);
  return {middle, drawn[kResamples / 40], drawn[kResamples - 1 - kResamples / 40]};
}

class Draw {
 public:
  size_t below(size_t count) {
    return std::uniform_int_distribution<size_t>(0, count - 1)(random_);
  }
  void some(std::span<const double> from, std::vector<double>& into) {
    for (double& value : into) value = from[below(from.size())];
  }

 private:
  std::mt19937 random_{kSeed};
};

}  // namespace

double median_of(std::span<const double> values) {
  if (values.empty()) return 0;
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

Interval median_interval(std::span<const double> values) {
  if (values.empty()) return {};
  Draw draw;
  std::vector<double> medians;
  std::vector<double> some(values.size());
  for (size_t i = 0; i < kResamples; ++i) {
    draw.some(values, some);
    medians.push_back(median_of(some));
  }
  return around(median_of(values), std::move(medians));
}

Interval ratio_interval(std::span<const double> one, std::span<const double> other) {
  const size_t rounds = std::min(one.size(), other.size());
  if (rounds == 0) return {};
  Draw draw;
  std::vector<double> ratios;
  std::vector<double> some(rounds);
  std::vector<double> same(rounds);
  for (size_t i = 0; i < kResamples; ++i) {
    for (size_t k = 0; k < rounds; ++k) {
      const size_t round = draw.below(rounds);
      some[k] = one[round];
      same[k] = other[round];
    }
    ratios.push_back(ratio(some, same));
  }
  return around(ratio(one.first(rounds), other.first(rounds)), std::move(ratios));
}

Interval unpaired_ratio_interval(std::span<const double> one, std::span<const double> other) {
  if (one.empty() || other.empty()) return {};
  Draw draw;
  std::vector<double> ratios;
  std::vector<double> some(one.size());
  std::vector<double> others(other.size());
  for (size_t i = 0; i < kResamples; ++i) {
    draw.some(one, some);
    draw.some(other, others);
    ratios.push_back(ratio(some, others));
  }
  return around(ratio(one, other), std::move(ratios));
}

double spread_of_ratio(const Interval& ratio) {
  if (ratio.low <= 0 || ratio.high <= 0) return 0;
  return std::max({ratio.high, 1 / ratio.low, 1.0}) - 1;
}

}  // namespace skiff::vmm
