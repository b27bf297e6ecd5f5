// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/json_keys.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "loop/result.h"

namespace skiff::vmm {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

namespace {

constexpr int kJsonDepthMax = 32;

// The library writes values out by recursion: what nests too deeply would take the stack.
bool is_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string && (c == '[' || c == '{')) {
      if (++depth > kJsonDepthMax) return true;
    } else if (!in_string && (c == ']' || c == '}')) {
      --depth;
    }
  }
  return false;
}

}  // namespace

Error json_refusal(const std::string& key, const OrderedJson& value, std::string_view allowed) {
  constexpr size_t kShownBytesMax = 200;
  std::string text = value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  if (text.size() > kShownBytesMax) text = text.substr(0, kShownBytesMax) + "...";
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("{}: {} is not possible (allowed: {})", key, text, allowed));
}

Result<void> apply_json_keys(const std::string& where, const OrderedJson& object,
                             std::span<const JsonKey> keys) {
  for (const auto& [name, value] : object.items()) {
    const auto key = std::ranges::find(keys, name, &JsonKey::name);
    if (key == keys.end()) {
      std::string known;
      for (const JsonKey& one : keys) known.append(known.empty() ? "" : ", ").append(one.name);
      return Error(ErrorKind::kInvalidArgument,
                   fmt::format("{}{}: unknown key (allowed: {})", where, name, known));
    }
    const Result<bool> set = key->set(value);
    if (!set) return set.error();
    if (!*set) return json_refusal(where + name, value, key->allowed);
  }
  return {};
}

Result<OrderedJson> parse_json(std::string_view text) {
  if (is_too_deep(text))
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("More than {} brackets within each other", kJsonDepthMax));
  OrderedJson root =
      OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (root.is_discarded())
    return Error(ErrorKind::kInvalidArgument,
                 "This is not JSON (look for a missing comma or brace)");
  return root;
}

Result<OrderedJson> parse_json_object(std::string_view text) {
  auto parsed = parse_json(text);
  if (!parsed) return parsed.error();
  OrderedJson& root = *parsed;
  if (!root.is_object())
    return Error(ErrorKind::kInvalidArgument, "The outermost value must be an object: {...}");
  return std::move(root);
}

std::optional<uint64_t> json_uint(const OrderedJson& value, uint64_t min, uint64_t max) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto number = value.get<uint64_t>();
  if (number < min || number > max) return std::nullopt;
  return number;
}

std::optional<double> json_number(const OrderedJson& value, double min, double max) {
  if (!value.is_number()) return std::nullopt;
  const auto number = value.get<double>();
  if (!(number >= min) || number > max) return std::nullopt;
  return number;
}

std::optional<std::string> json_text(const OrderedJson& value, size_t bytes_max) {
  if (!value.is_string()) return std::nullopt;
  auto text = value.get<std::string>();
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (text.size() > bytes_max || std::ranges::any_of(text, is_control)) return std::nullopt;
  return text;
}

bool is_plain_name(std::string_view text) {
  constexpr size_t kBytesMax = 64;
  const auto is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto is_part = [&](char c) {
    return is_lower(c) || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  };
  return !text.empty() && text.size() <= kBytesMax && is_lower(text.front()) &&
         std::ranges::all_of(text, is_part);
}

}  // namespace skiff::vmm
