// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/units.h"

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>

namespace skiff::block {
namespace {

struct Unit {
  std::string_view name;
  uint64_t factor;
};
constexpr std::array kNone = {Unit{"", 1}};
constexpr std::array kSizes = {Unit{"", 1}, Unit{"K", uint64_t{1} << 10},
                               Unit{"M", uint64_t{1} << 20}, Unit{"G", uint64_t{1} << 30},
                               Unit{"T", uint64_t{1} << 40}};
constexpr std::array kTimes = {Unit{"ns", 1}, Unit{"us", 1000}, Unit{"ms", 1'000'000},
                               Unit{"s", 1'000'000'000}};

std::optional<uint64_t> parse(std::string_view text, std::span<const Unit> units, uint64_t most) {
  uint64_t number = 0;
  const char* const end = std::to_address(text.end());
  const auto [stop, failure] = std::from_chars(std::to_address(text.begin()), end, number);
  if (failure != std::errc()) return std::nullopt;
  const std::string_view unit(stop, static_cast<size_t>(end - stop));
  for (const Unit& known : units)
    if (unit == known.name && number <= most / known.factor) return number * known.factor;
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> parse_count(std::string_view text, uint64_t most) {
  return parse(text, kNone, most);
}

std::optional<uint64_t> parse_bytes(std::string_view text, uint64_t most) {
  return parse(text, kSizes, most);
}

std::optional<uint64_t> parse_time_ns(std::string_view text, uint64_t most) {
  if (text == "0") return 0;
  return parse(text, kTimes, most);
}

}  // namespace skiff::block
