// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/option_text.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "loop/result.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      parts.back().push_back(text[i]);
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      parts.back().push_back(',');
      ++i;
    } else {
      parts.emplace_back();
    }
  }
  return parts;
}

std::string names_of(std::span<const Field> fields) {
  std::string names;
  for (const Field& field : fields) {
    if (!names.empty()) names += ", ";
    names += field.name;
  }
  return names;
}

}  // namespace

Result<std::vector<KeyValue>> split_options(std::string_view option, std::string_view text,
                                            std::string_view leading_key) {
  std::vector<KeyValue> pairs;
  for (const std::string& part : split_at_commas(text)) {
    const size_t equals = part.find('=');
    if (equals != std::string::npos && equals > 0) {
      pairs.push_back({part.substr(0, equals), part.substr(equals + 1)});
    } else if (pairs.empty() && !leading_key.empty() && !part.empty()) {
      pairs.push_back({std::string(leading_key), part});
    } else {
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("{}: \"{}\" in \"{}\" is not KEY=VALUE", option, part, text));
    }
  }
  return pairs;
}

Result<void> apply_fields(std::string_view option, std::span<const KeyValue> pairs,
                          std::span<const Field> fields) {
  for (size_t i = 0; i < pairs.size(); ++i) {
    const KeyValue& pair = pairs[i];
    const auto field = std::ranges::find(fields, pair.key, &Field::name);
    if (field == fields.end())
      return Error(ErrorKind::kInvalidArgument, fmt::format("{}: unknown key \"{}\" (allowed: {})",
                                                            option, pair.key, names_of(fields)));
    if (std::ranges::count(pairs.first(i), pair.key, &KeyValue::key) > 0)
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("{}: \"{}\" is given twice", option, pair.key));
    if (!field->set(pair.value))
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("{}: {}=\"{}\" is not possible (allowed: {})", option, pair.key,
                               pair.value, field->allowed));
  }
  return {};
}

std::optional<uint64_t> parse_uint(std::string_view text, uint64_t min, uint64_t max) {
  uint64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = stop == text.data() + text.size();
  if (error != std::errc() || !is_whole || value < min || value > max) return std::nullopt;
  return value;
}

std::optional<bool> parse_switch(std::string_view text) {
  if (text == "on") return true;
  if (text == "off") return false;
  return std::nullopt;
}

}  // namespace skiff::vmm
