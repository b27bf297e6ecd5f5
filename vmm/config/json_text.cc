// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/config/json_text.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "loop/result.h"

namespace skiff::vmm {
namespace {

// What follows the string that begins at `begin`: the offset behind its closing quote.
size_t end_of_string(std::string_view text, size_t begin) {
  size_t at = begin + 1;
  while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return at + 1;
}

// The offset behind the comment that begins at `begin`; `begin` when there is none.
size_t end_of_comment(std::string_view text, size_t begin) {
  const std::string_view rest = text.substr(begin);
  const bool is_line = rest.starts_with("//");
  if (!is_line && !rest.starts_with("/*")) return begin;
  const size_t end = is_line ? rest.find_first_of("\r\n") : rest.find("*/", 2);
  if (end == std::string_view::npos) return text.size();
  return begin + end + (is_line ? 1 : 2);
}

}  // namespace

loop::Result<void> check_json_depth(std::string_view text, JsonComments comments) {
  int depth = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    // A bracket in a string or in a comment is none.
    if (c == '"') {
      at = end_of_string(text, at);
      continue;
    }
    if (c == '/' && comments == JsonComments::kIgnored) {
      at = std::max(end_of_comment(text, at), at + 1);
      continue;
    }
    if (c == ']' || c == '}') --depth;
    if ((c == '[' || c == '{') && ++depth > kJsonDepthMax)
      return loop::Error(loop::ErrorKind::kInvalidArgument,
                         fmt::format("This JSON has more than {} brackets within each other (at "
                                     "byte {})",
                                     kJsonDepthMax, at));
    ++at;
  }
  return {};
}

}  // namespace skiff::vmm
