// SPDX-License-Identifier: GPL-2.0-or-later
// The control messages of the console device (virtio 1.2, 5.3.6.2) as they lie in a queue's
// buffers.
//
// Thread: any; no state.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace skiff::devices {

enum class ConsoleEvent : uint16_t {
  kDeviceReady = 0,
  kDeviceAdd = 1,
  kDeviceRemove = 2,
  kPortReady = 3,
  kConsolePort = 4,
  kResize = 5,
  kPortOpen = 6,
  kPortName = 7,
};

struct ConsoleControl {
  uint32_t port = 0;
  ConsoleEvent event = ConsoleEvent::kDeviceReady;
  uint16_t value = 0;
};
inline constexpr uint64_t kConsoleControlBytes = 8;

// Nothing when the buffers are shorter than a message. The event may be none of those above.
std::optional<ConsoleControl> read_control(std::span<const iovec> from);
// Returns the bytes written, or 0 when message and payload do not fit.
uint32_t write_control(const ConsoleControl& message, std::span<const std::byte> payload,
                       std::span<const iovec> into);

}  // namespace skiff::devices
