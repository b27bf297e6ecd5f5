// SPDX-License-Identifier: GPL-2.0-or-later
// ErrorPolicy: what becomes of a guest's request that the host could not carry out.
//
// Thread: any; pure functions.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

namespace skiff::block {

enum class ErrorPolicy : uint8_t {
  kReport,  // The guest sees the error.
  kIgnore,  // The guest is told that all is well.
  kEnospc,  // kStop when there is no room left, otherwise kReport.
  kStop,    // The request waits, and the machine with it, until somebody resumes it.
};

struct ErrorPolicies {
  ErrorPolicy read = ErrorPolicy::kReport;
  ErrorPolicy write = ErrorPolicy::kReport;  // Everything but reads.
};

enum class ErrorAction : uint8_t { kReport, kIgnore, kStop };

// `result` is -errno. What the request itself is to blame for is always reported: a guest must not
// stop its machine at will, and a second attempt would end the same way.
constexpr ErrorAction action_for(ErrorPolicy policy, int32_t result) {
  if (result == -EINVAL || result == -EOPNOTSUPP) return ErrorAction::kReport;
  const bool no_room = result == -ENOSPC || result == -EDQUOT;
  switch (policy) {
    case ErrorPolicy::kReport:
      break;
    case ErrorPolicy::kIgnore:
      return ErrorAction::kIgnore;
    case ErrorPolicy::kEnospc:
      return no_room ? ErrorAction::kStop : ErrorAction::kReport;
    case ErrorPolicy::kStop:
      return ErrorAction::kStop;
  }
  return ErrorAction::kReport;
}

inline constexpr std::string_view kErrorPolicyNames = "report, ignore, enospc or stop";

constexpr std::optional<ErrorPolicy> parse_error_policy(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, ErrorPolicy>, 4> kNames = {
      {{"report", ErrorPolicy::kReport},
       {"ignore", ErrorPolicy::kIgnore},
       {"enospc", ErrorPolicy::kEnospc},
       {"stop", ErrorPolicy::kStop}}};
  for (const auto& [name, policy] : kNames)
    if (name == text) return policy;
  return std::nullopt;
}

}  // namespace skiff::block
