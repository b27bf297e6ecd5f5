// SPDX-License-Identifier: GPL-2.0-or-later
// JSON objects read by a table of their keys, so that whatever is wrong is named: the key, its
// value, and what is allowed.
//
// Thread: any; pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "loop/result.h"

namespace skiff::vmm {

using OrderedJson = nlohmann::ordered_json;

// One key that an object may have. `set` says whether the value was allowed; an error of its own
// says more than `allowed` can.
struct JsonKey {
  std::string_view name;
  std::string_view allowed;
  std::function<loop::Result<bool>(const OrderedJson&)> set;
};

// Sets each key's value. `where` is put before names in messages: "runs[0].".
loop::Result<void> apply_json_keys(const std::string& where, const OrderedJson& object,
                                   std::span<const JsonKey> keys);
loop::Error json_refusal(const std::string& key, const OrderedJson& value,
                         std::string_view allowed);

// JSON with comments; kInvalidArgument when it is none, nests too deeply, or (for the second) its
// outermost value is no object.
loop::Result<OrderedJson> parse_json(std::string_view text);
loop::Result<OrderedJson> parse_json_object(std::string_view text);

std::optional<uint64_t> json_uint(const OrderedJson& value, uint64_t min, uint64_t max);
std::optional<double> json_number(const OrderedJson& value, double min, double max);
// Not longer than `bytes_max`, without control characters.
std::optional<std::string> json_text(const OrderedJson& value, size_t bytes_max);
// A lower-case letter, then letters, digits, '-' and '_'; up to 64.
bool is_plain_name(std::string_view text);

}  // namespace skiff::vmm
