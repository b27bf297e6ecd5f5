// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/debug/debug_ports.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "devices/core/bus.h"
#include "loop/log.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

constexpr uint8_t kPanicked = 1 << 0;
constexpr uint8_t kCrashLoaded = 1 << 1;

}  // namespace

void DebugExit::bus_read(uint64_t, std::span<uint8_t> data) { std::ranges::fill(data, uint8_t{0}); }

void DebugExit::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (offset_bytes != 0 || data.size() > kSizeBytes) return;
  if (on_exit_) on_exit_(static_cast<uint32_t>(load_le(data)));
}

loop::Task<void> DebugExit::reset() { co_return; }

uint8_t DebugConsole::read_register(uint64_t offset) {
  return offset == 0 ? 0xe9 : 0xff;  // By this a guest knows that it is there.
}

void DebugConsole::write_register(uint64_t offset, uint8_t value) {
  if (offset != 0) return;
  if (port_.write(std::span(&value, 1)) == 0)
    SKIFF_LOG_LIMITED(kWarn, "Debug console: {} takes no more, text is lost", port_.description());
}

loop::Task<void> DebugConsole::reset() { co_return; }

uint8_t PvPanic::read_register(uint64_t offset) {
  return offset == 0 ? kPanicked | kCrashLoaded : 0xff;  // The events we know.
}

void PvPanic::write_register(uint64_t offset, uint8_t value) {
  if (offset != 0) return;
  if ((value & ~unsigned{kPanicked | kCrashLoaded}) != 0)
    SKIFF_LOG_LIMITED(kWarn, "The guest reports an unknown panic event {:#x}", value);
  if (!on_event_) return;
  if ((value & kPanicked) != 0) on_event_(Event::kPanicked);
  if ((value & kCrashLoaded) != 0) on_event_(Event::kCrashLoaded);
}

loop::Task<void> PvPanic::reset() { co_return; }

}  // namespace skiff::devices
