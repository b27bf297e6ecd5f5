// SPDX-License-Identifier: GPL-2.0-or-later
// The process's log on stderr: the one process-wide object there is.
//
// Messages are capitalised facts without a final full stop: SKIFF_LOG(kWarn, "Disk {} is
// read-only", path). Whatever a guest or a peer can trigger goes through SKIFF_LOG_LIMITED. Thread:
// any.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace skiff::loop {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError, kOff };

// Until it is called, warnings and errors are shown.
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
void log_message(LogLevel level, std::string_view message);

// Ten messages a second from one place in the code; says how many were left out when it lets one
// through again.
class LogLimiter {
 public:
  struct Verdict {
    bool allowed = false;
    uint64_t suppressed_before = 0;
  };
  Verdict check(int64_t now_ns);

 private:
  std::atomic<int64_t> window_start_ns_{0};
  std::atomic<uint32_t> in_window_{0};
  std::atomic<uint64_t> suppressed_{0};
};

int64_t log_clock_ns();
std::string suppressed_note(uint64_t suppressed);

}  // namespace skiff::loop

#define SKIFF_LOG(level, ...)                                                               \
  do {                                                                                      \
    if (::skiff::loop::log_enabled(::skiff::loop::LogLevel::level))                         \
      ::skiff::loop::log_message(::skiff::loop::LogLevel::level, fmt::format(__VA_ARGS__)); \
  } while (false)

#define SKIFF_LOG_LIMITED(level, ...)                                                              \
  do {                                                                                             \
    static ::skiff::loop::LogLimiter skiff_limiter;                                                \
    if (::skiff::loop::log_enabled(::skiff::loop::LogLevel::level)) {                              \
      if (auto verdict = skiff_limiter.check(::skiff::loop::log_clock_ns()); verdict.allowed)      \
        ::skiff::loop::log_message(                                                                \
            ::skiff::loop::LogLevel::level,                                                        \
            fmt::format(__VA_ARGS__) + ::skiff::loop::suppressed_note(verdict.suppressed_before)); \
    }                                                                                              \
  } while (false)
