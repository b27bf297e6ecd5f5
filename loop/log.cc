// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/log.h"

#include <time.h>

#include <atomic>
#include <cstdint>
#include <string_view>

// The whole tree is built without exceptions; spdlog must know.
#define SPDLOG_NO_EXCEPTIONS
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <ctime>
#include <memory>

namespace skiff::loop {
namespace {

constexpr int64_t kWindowNs = 1'000'000'000;
constexpr uint32_t kMessagesPerWindow = 10;

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

// Never destroyed: threads that outlive main's statics may still log.
spdlog::logger& logger() {
  static spdlog::logger& instance = *[] {
    auto* made =
        new spdlog::logger("skiff", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("skiff: %^%l%$: %v");
    made->set_level(spdlog::level::warn);
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return instance;
}

}  // namespace

void set_log_level(LogLevel level) { logger().set_level(spdlog_level(level)); }

bool log_enabled(LogLevel level) {
  return level != LogLevel::kOff && logger().should_log(spdlog_level(level));
}

void log_message(LogLevel level, std::string_view message) {
  // As an argument, so that braces in the text mean nothing.
  logger().log(spdlog_level(level), "{}", message);
}

LogLimiter::Verdict LogLimiter::check(int64_t now_ns) {
  int64_t start = window_start_ns_.load(std::memory_order_relaxed);
  if (start == 0 || now_ns - start >= kWindowNs) {
    if (window_start_ns_.compare_exchange_strong(start, now_ns, std::memory_order_relaxed))
      in_window_.store(0, std::memory_order_relaxed);
  }
  if (in_window_.fetch_add(1, std::memory_order_relaxed) < kMessagesPerWindow)
    return {.allowed = true, .suppressed_before = suppressed_.exchange(0)};
  suppressed_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

int64_t log_clock_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::string suppressed_note(uint64_t suppressed) {
  if (suppressed == 0) return {};
  return fmt::format(" ({} more like this were left out)", suppressed);
}

}  // namespace skiff::loop
