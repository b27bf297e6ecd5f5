// SPDX-License-Identifier: GPL-2.0-or-later
// JSON that somebody else wrote, read without harm: what nests too deeply is refused before it is
// parsed, because the library copies and writes values by recursion.
//
// Thread: any; pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "loop/result.h"

namespace skiff::vmm {

inline constexpr int kJsonDepthMax = 16;

enum class JsonComments : uint8_t { kRefused, kIgnored };

// kInvalidArgument when more than kJsonDepthMax brackets stand within each other.
loop::Result<void> check_json_depth(std::string_view text, JsonComments comments);

// kInvalidArgument when it is no JSON, or nests too deeply. `Json` is one of the library's types.
template <typename Json>
loop::Result<Json> parse_json_text(std::string_view text, JsonComments comments) {
  SKIFF_RETURN_IF_ERROR(check_json_depth(text, comments));
  Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false,
                          /*ignore_comments=*/comments == JsonComments::kIgnored);
  if (root.is_discarded())
    return loop::Error(loop::ErrorKind::kInvalidArgument,
                       "This is not JSON (look for a missing comma or brace)");
  return root;
}

}  // namespace skiff::vmm
