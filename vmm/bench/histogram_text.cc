// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/histogram_text.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "loop/latency_histogram.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

// Beyond these nothing real lies, and sums of many cannot wrap.
constexpr uint64_t kTimeMaxNs = uint64_t{1} << 50;
constexpr uint64_t kCountMax = uint64_t{1} << 50;
constexpr size_t kBucketsMax = 4096;

}  // namespace

std::string histogram_text(const loop::LatencyHistogram& latency) {
  std::string text;
  for (const auto& [up_to_ns, count] : latency.buckets())
    text += fmt::format("{}{}:{}", text.empty() ? "" : " ", up_to_ns, count);
  return text;
}

std::optional<loop::LatencyHistogram> parse_histogram_text(std::string_view text) {
  loop::LatencyHistogram latency;
  size_t buckets = 0;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find(' '));
    const size_t colon = pair.find(':');
    if (colon == std::string_view::npos || ++buckets > kBucketsMax) return std::nullopt;
    const auto time_ns = parse_uint(pair.substr(0, colon), 0, kTimeMaxNs);
    const auto count = parse_uint(pair.substr(colon + 1), 1, kCountMax);
    if (!time_ns || !count) return std::nullopt;
    latency.record_many(static_cast<int64_t>(*time_ns), *count);
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
  }
  return latency;
}

}  // namespace skiff::vmm
