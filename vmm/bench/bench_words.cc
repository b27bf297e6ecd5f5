// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/bench_words.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "block/io_engine.h"
#include "block/units.h"
#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver/blk_table.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

using block::IoEngineKind;
using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr std::array<std::pair<std::string_view, AccessPattern>, 5> kPatterns = {
    {{"read", AccessPattern::kRead},
     {"write", AccessPattern::kWrite},
     {"randread", AccessPattern::kRandRead},
     {"randwrite", AccessPattern::kRandWrite},
     {"randrw", AccessPattern::kRandRw}}};

constexpr double kDurationMinSeconds = 0.01;
constexpr double kDurationMaxSeconds = 86'400;

// Calls `take` for each part between commas; the first error ends it.
template <typename Take>
Result<void> for_each_part(std::string_view text, Take take) {
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    SKIFF_RETURN_IF_ERROR(take(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return {};
}

}  // namespace

Error refused_word(std::string_view option, std::string_view value, std::string_view allowed) {
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("--{} {}: allowed: {}", option, value, allowed));
}

template <typename T>
Result<void> take_number(T& target, std::string_view option, std::string_view text, uint64_t max) {
  const auto value = parse_uint(text, 1, max);
  if (!value) return refused_word(option, text, fmt::format("1 to {}", max));
  target = static_cast<T>(*value);
  return {};
}
template Result<void> take_number(uint16_t&, std::string_view, std::string_view, uint64_t);
template Result<void> take_number(uint32_t&, std::string_view, std::string_view, uint64_t);
template Result<void> take_number(uint64_t&, std::string_view, std::string_view, uint64_t);

std::optional<uint64_t> bench_size(std::string_view text) {
  std::string upper(text);
  constexpr std::string_view kSmall = "kmgt";
  if (!upper.empty() && kSmall.find(upper.back()) != std::string_view::npos)
    upper.back() = static_cast<char>(upper.back() - 'a' + 'A');
  return block::parse_bytes(upper);
}

Result<void> take_block_bytes(uint64_t& target, std::string_view text, uint64_t max) {
  const auto block = bench_size(text);
  if (!block || *block == 0 || *block % 512 != 0 || *block > max)
    return refused_word("bs", text,
                        fmt::format("a multiple of 512, up to {}M, like 4k or 1M", max >> 20));
  target = *block;
  return {};
}

Result<void> take_engines(std::vector<IoEngineKind>& target, std::string_view text) {
  std::string allowed;
  for (const IoEngineKind kind : block::kAllEngineKinds)
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", block::engine_name(kind));
  return for_each_part(text, [&](std::string_view name) -> Result<void> {
    const auto kind = block::parse_engine(name);
    if (!kind) return refused_word("engine", name, allowed + "; several with commas");
    // Twice the same is allowed: it shows how far two equal measurements lie apart.
    target.push_back(*kind);
    return {};
  });
}

Result<void> take_duration(int64_t& target, const std::string& text) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  const bool number = error == std::errc() && end == text.data() + text.size();
  if (!number || !(seconds >= kDurationMinSeconds) || seconds > kDurationMaxSeconds)
    return refused_word("duration", text, "seconds, 0.01 to 86400");
  target = static_cast<int64_t>(seconds * 1e9);
  return {};
}

Result<void> take_pattern(AccessPattern& target, std::string_view text) {
  const auto* pattern =
      std::ranges::find(kPatterns, text, &std::pair<std::string_view, AccessPattern>::first);
  if (pattern == kPatterns.end())
    return refused_word("rw", text, "read, write, randread, randwrite or randrw");
  target = pattern->second;
  return {};
}

Result<void> take_queue_size(uint16_t& target, const std::string& text) {
  SKIFF_RETURN_IF_ERROR(take_optional(target, "queue-size", text, 1024));
  if ((target & (target - 1)) != 0 || target < 4)
    return refused_word("queue-size", text, "a power of two, 4 to 1024");
  return {};
}

Result<void> take_size(uint64_t& target, const std::string& text, uint64_t block_bytes) {
  if (text.empty()) return {};
  const auto size = bench_size(text);
  if (!size || *size < block_bytes)
    return refused_word("size", text, "at least one block, like 512M or 4G");
  target = *size;
  return {};
}

Result<void> check_queue_depth(uint32_t depth, uint16_t queue_size, bool indirect) {
  const uint32_t most = BlkTable::depth_max(queue_size, indirect);
  if (depth <= most) return {};
  return refused_word(
      "depth", std::to_string(depth),
      fmt::format("1 to {} with a queue of {}{}", most, queue_size,
                  indirect ? "" : " (three descriptors each; one with --indirect)"));
}

Result<void> check_plot_name(const std::string& name) {
  if (!name.empty() && !name.ends_with(".svg"))
    return refused_word("plot", name, "a file name that ends in .svg");
  return {};
}

Result<void> take_list(std::vector<std::string>& target, std::string_view option,
                       std::string_view text, const std::vector<std::string_view>& allowed) {
  return for_each_part(text, [&](std::string_view part) -> Result<void> {
    if (std::ranges::find(allowed, part) == allowed.end()) {
      std::string names;
      for (const std::string_view name : allowed)
        names.append(names.empty() ? "" : ", ").append(name);
      return refused_word(option, part, names + "; several with commas");
    }
    target.emplace_back(part);
    return {};
  });
}

std::string_view pattern_name(AccessPattern pattern) {
  for (const auto& [name, value] : kPatterns)
    if (value == pattern) return name;
  return "";
}

}  // namespace skiff::vmm
