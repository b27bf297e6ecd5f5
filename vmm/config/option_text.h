// SPDX-License-Identifier: GPL-2.0-or-later
// Option text: "4,sockets=2,pin=0-3" taken apart and applied to a table of fields.
//
// The command line and the JSON file meet here: both become key/value pairs, so both know the same
// names, allow the same values and complain in the same words. Thread: any; pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loop/result.h"

namespace skiff::vmm {

struct KeyValue {
  std::string key;
  std::string value;
};

// One key that an option knows. `set` says whether the value was allowed.
struct Field {
  std::string_view name;
  std::string_view allowed;  // For the message: "on or off", "1 to 255".
  std::function<bool(std::string_view)> set;
};

// Splits at commas; a part without '=' is allowed only first and becomes the value of
// `leading_key`. A doubled comma stands for one comma inside a value.
loop::Result<std::vector<KeyValue>> split_options(std::string_view option, std::string_view text,
                                                  std::string_view leading_key);

// Sets each pair's field. Errors name option, key, value and what is allowed; a key given twice is
// one.
loop::Result<void> apply_fields(std::string_view option, std::span<const KeyValue> pairs,
                                std::span<const Field> fields);

std::optional<uint64_t> parse_uint(std::string_view text, uint64_t min, uint64_t max);
std::optional<bool> parse_switch(std::string_view text);  // "on" or "off".

}  // namespace skiff::vmm
