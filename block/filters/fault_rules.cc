// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/fault_rules.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "block/block_channel.h"
#include "block/units.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr size_t kRulesMax = 64;

constexpr uint64_t kDelayMaxNs = 3600'000'000'000;

constexpr std::array<std::pair<std::string_view, int>, 12> kErrors = {{{"EIO", EIO},
                                                                       {"ENOSPC", ENOSPC},
                                                                       {"EDQUOT", EDQUOT},
                                                                       {"EROFS", EROFS},
                                                                       {"EPERM", EPERM},
                                                                       {"EAGAIN", EAGAIN},
                                                                       {"ENOMEM", ENOMEM},
                                                                       {"ETIMEDOUT", ETIMEDOUT},
                                                                       {"EREMOTEIO", EREMOTEIO},
                                                                       {"ENODATA", ENODATA},
                                                                       {"EOPNOTSUPP", EOPNOTSUPP},
                                                                       {"ENODEV", ENODEV}}};

std::optional<uint64_t> parse_at_least(std::string_view text, uint64_t least) {
  const auto number = parse_count(text);
  return number && *number >= least ? number : std::nullopt;
}

template <typename T>
bool assign(T& target, std::optional<uint64_t> value) {
  if (value) target = static_cast<T>(*value);
  return value.has_value();
}

// Without strtod, which asks the locale what a decimal point is.
bool assign_probability(double& target, std::string_view text) {
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = stop == text.data() + text.size();
  if (error != std::errc() || !is_whole || !(value >= 0 && value <= 1)) return false;
  target = value;
  return true;
}

bool assign_ops(FaultRule& rule, std::string_view text) {
  if (text == "any") {
    rule.ops = FaultRule::kAnyOp;
    return true;
  }
  for (const BlockOp op : {BlockOp::kRead, BlockOp::kWrite, BlockOp::kFlush, BlockOp::kDiscard,
                           BlockOp::kWriteZeroes, BlockOp::kStatus}) {
    if (text != block_op_name(op)) continue;
    rule.ops = uint32_t{1} << static_cast<unsigned>(op);
    return true;
  }
  return false;
}

// OFFSET or OFFSET+LENGTH.
bool assign_range(FaultRule& rule, std::string_view text) {
  const size_t plus = std::min(text.find('+'), text.size());
  const auto offset = parse_bytes(text.substr(0, plus));
  if (!offset) return false;
  rule.offset_bytes = *offset;
  if (plus == text.size()) return true;
  const auto length = parse_bytes(text.substr(plus + 1));
  if (!length || *length == 0) return false;
  rule.length_bytes = *length;
  return true;
}

bool assign_error(FaultRule& rule, std::string_view text) {
  for (const auto& [name, number] : kErrors) {
    if (name != text) continue;
    rule.error = number;
    return true;
  }
  return assign(rule.error, parse_count(text, 133)) && rule.error > 0;
}

bool assign_torn(FaultRule& rule, std::string_view text) {
  rule.torn = true;
  rule.torn_sectors = FaultRule::kRandomSectors;
  if (text == "random") return true;
  return assign(rule.torn_sectors, parse_count(text, 1 << 21));
}

bool assign_io(FaultRule& rule, std::string_view text) {
  if (text == "short") rule.io = FaultRule::Io::kShort;
  if (text == "eintr") rule.io = FaultRule::Io::kIntr;
  if (text == "eagain") rule.io = FaultRule::Io::kAgain;
  return rule.io != FaultRule::Io::kNone;
}

struct Field {
  std::string_view name;
  std::string_view allowed;
  bool (*set)(FaultRule& rule, std::string_view text);
};
constexpr std::array kFields = {
    Field{"op", "read, write, flush, discard, write-zeroes, status or any", assign_ops},
    Field{"at", "OFFSET or OFFSET+LENGTH like 1M+64K", assign_range},
    Field{"nth", "1 or more",
          [](FaultRule& rule, std::string_view text) {
            return assign(rule.nth, parse_at_least(text, 1));
          }},
    Field{"every", "1 or more",
          [](FaultRule& rule, std::string_view text) {
            return assign(rule.every, parse_at_least(text, 1));
          }},
    Field{"times", "1 or more",
          [](FaultRule& rule, std::string_view text) {
            return assign(rule.times, parse_at_least(text, 1));
          }},
    Field{"p", "a probability from 0 to 1",
          [](FaultRule& rule, std::string_view text) {
            return assign_probability(rule.probability, text);
          }},
    Field{"delay", "0ns to 3600s like 5ms",
          [](FaultRule& rule, std::string_view text) {
            return assign(rule.delay_ns, parse_time_ns(text, kDelayMaxNs));
          }},
    Field{"error",
          "EIO, ENOSPC, EDQUOT, EROFS, EPERM, EAGAIN, ENOMEM, ETIMEDOUT, EREMOTEIO, "
          "ENODATA, EOPNOTSUPP, ENODEV or a number",
          assign_error},
    Field{"torn", "a number of sectors or random", assign_torn},
    Field{"io", "short, eintr or eagain", assign_io},
};

Error invalid(std::string_view rule, std::string_view why) {
  return {ErrorKind::kInvalidArgument, fmt::format("fault: \"{}\": {}", rule, why)};
}

Result<void> apply(FaultRule& rule, std::string_view text, std::string_view pair) {
  const size_t equals = std::min(pair.find('='), pair.size());
  const auto* const field = std::ranges::find(kFields, pair.substr(0, equals), &Field::name);
  if (field == kFields.end() || equals == pair.size())
    return invalid(text, fmt::format("\"{}\" is not possible (allowed: op=, at=, nth=, every=, "
                                     "times=, p=, delay=, error=, torn=, io=; seed= alone)",
                                     pair));
  if (!field->set(rule, pair.substr(equals + 1)))
    return invalid(text, fmt::format("\"{}\" is not possible (allowed: {})", pair, field->allowed));
  return {};
}

Result<FaultRule> parse_rule(std::string_view text) {
  FaultRule rule;
  bool times_given = false;
  bool nth_given = false;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find_first_of(",:"), rest.size());
    const std::string_view pair = rest.substr(0, end);
    SKIFF_RETURN_IF_ERROR(apply(rule, text, pair));
    times_given = times_given || pair.starts_with("times=") || pair.starts_with("every=");
    nth_given = nth_given || pair.starts_with("nth=");
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  // "The third write" is one write.
  if (nth_given && !times_given) rule.times = 1;
  if (rule.torn && rule.error == 0) rule.error = EIO;
  if (rule.io != FaultRule::Io::kNone && (rule.error != 0 || rule.delay_ns != 0))
    return invalid(text, "io= goes with no error=, torn= or delay=");
  if (rule.io == FaultRule::Io::kNone && rule.error == 0 && rule.delay_ns == 0)
    return invalid(text, "says nothing that happens (error=, torn=, delay= or io=)");
  return rule;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

Result<FaultRules> FaultRules::parse(std::string_view text) {
  FaultRules parsed;
  while (!text.empty()) {
    const size_t end = std::min(text.find(';'), text.size());
    const std::string_view part = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (part.empty()) continue;
    if (part.starts_with("seed=")) {
      if (!assign(parsed.seed, parse_count(part.substr(5))))
        return invalid(part, "no seed (allowed: a number)");
      continue;
    }
    auto rule = parse_rule(part);
    if (!rule) return rule.error();
    if (parsed.rules.size() == kRulesMax)
      return invalid(part, fmt::format("more than {} rules", kRulesMax));
    parsed.rules.push_back(*rule);
  }
  return parsed;
}

}  // namespace skiff::block
