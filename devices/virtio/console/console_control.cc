// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/console/console_control.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace skiff::devices {

namespace {

// As the message lies in memory: le32, le16, le16.
struct WireControl {
  uint32_t port;
  uint16_t event;
  uint16_t value;
};
static_assert(sizeof(WireControl) == kConsoleControlBytes);

uint64_t total_bytes(std::span<const iovec> parts) {
  uint64_t total = 0;
  for (const iovec& part : parts) total += part.iov_len;
  return total;
}

// Writes `bytes` at `offset_bytes` of the parts, which have room for it.
void scatter(std::span<const std::byte> bytes, uint64_t offset_bytes,
             std::span<const iovec> parts) {
  for (const iovec& part : parts) {
    if (offset_bytes >= part.iov_len) {
      offset_bytes -= part.iov_len;
      continue;
    }
    if (bytes.empty()) return;
    const size_t count = std::min<uint64_t>(bytes.size(), part.iov_len - offset_bytes);
    std::memcpy(static_cast<std::byte*>(part.iov_base) + offset_bytes, bytes.data(), count);
    bytes = bytes.subspan(count);
    offset_bytes = 0;
  }
}

}  // namespace

std::optional<ConsoleControl> read_control(std::span<const iovec> from) {
  std::array<std::byte, kConsoleControlBytes> bytes;
  size_t filled = 0;
  for (const iovec& part : from) {
    const size_t count = std::min(part.iov_len, bytes.size() - filled);
    std::memcpy(bytes.data() + filled, part.iov_base, count);
    filled += count;
    if (filled == bytes.size()) break;
  }
  if (filled < bytes.size()) return std::nullopt;
  WireControl wire;
  std::memcpy(&wire, bytes.data(), sizeof(wire));
  return ConsoleControl{wire.port, static_cast<ConsoleEvent>(wire.event), wire.value};
}

uint32_t write_control(const ConsoleControl& message, std::span<const std::byte> payload,
                       std::span<const iovec> into) {
  const uint64_t needed = kConsoleControlBytes + payload.size();
  if (total_bytes(into) < needed) return 0;
  const WireControl wire{message.port, static_cast<uint16_t>(message.event), message.value};
  scatter(std::as_bytes(std::span(&wire, 1)), 0, into);
  scatter(payload, kConsoleControlBytes, into);
  return static_cast<uint32_t>(needed);
}

}  // namespace skiff::devices
