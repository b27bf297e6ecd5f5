// SPDX-License-Identifier: GPL-2.0-or-later
// Vhost-user messages on a unix socket: framing, descriptors by SCM_RIGHTS, and payloads that are
// taken apart strictly. For both ends.
//
// A peer may send anything. Whatever does not fit the protocol is an error, after which the
// connection is of no use; no length or count of the peer's is used before it is checked, and no
// descriptor that came is left open. Thread: one at a time. Ownership: a message owns its
// descriptors; the socket is borrowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "devices/vhost_user/protocol.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

struct VhostMessage {
  uint32_t request = 0;
  bool is_reply = false;
  bool needs_reply = false;
  std::vector<std::byte> payload;
  std::vector<loop::UniqueFd> fds;

  VhostRequest kind() const { return static_cast<VhostRequest>(request); }

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void append(const T& value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    payload.insert(payload.end(), bytes.begin(), bytes.end());
  }
};

// Takes messages from a socket that may be non-blocking. After an error it must not be used again.
class VhostReader {
 public:
  // The next message, or nothing as long as the rest of it has not come. kCancelled: the peer
  // closed the connection between two messages; kCorrupt: anything that breaks the framing, also
  // death in the middle of a message.
  loop::Result<std::optional<VhostMessage>> read(int socket);

 private:
  loop::Result<bool> fill(int socket, std::span<std::byte> target);
  loop::Result<void> check_header() const;

  VhostHeader header_;
  VhostMessage message_;
  size_t got_bytes_ = 0;  // Of header and payload together.
};

// Sends messages, of whatever length the socket takes at a time.
class VhostWriter {
 public:
  // The descriptors are borrowed until it is sent.
  VhostWriter(const VhostMessage& message, std::span<const int> fds);
  // True: all is sent. False: the socket is full. kCancelled: the peer is gone.
  loop::Result<bool> write(int socket);

 private:
  std::vector<std::byte> bytes_;
  std::vector<int> fds_;
  size_t sent_bytes_ = 0;
};

// What the requests carry, each checked for its size, its number of descriptors and its ranges.
// kCorrupt otherwise.
loop::Result<void> parse_empty(const VhostMessage& message);
loop::Result<uint64_t> parse_u64(const VhostMessage& message);
loop::Result<VhostVringState> parse_vring_state(const VhostMessage& message, size_t queue_count);
loop::Result<VhostVringAddress> parse_vring_address(const VhostMessage& message,
                                                    size_t queue_count);

struct VhostVringFd {
  uint16_t index = 0;
  loop::UniqueFd fd;  // None: the sender has no use for it, or wants it polled.
};
loop::Result<VhostVringFd> parse_vring_fd(VhostMessage& message, size_t queue_count);

// As many descriptors as regions.
loop::Result<std::vector<VhostMemoryRegion>> parse_memory_table(const VhostMessage& message);
enum class RegionFd : uint8_t { kRequired, kOptional };
loop::Result<VhostMemoryRegion> parse_memory_region(const VhostMessage& message, RegionFd fd);

struct VhostConfigAccess {
  uint32_t offset = 0;
  uint32_t flags = 0;
  std::span<const std::byte> bytes;  // Within the message.
};
loop::Result<VhostConfigAccess> parse_config(const VhostMessage& message);
loop::Result<VhostInflight> parse_inflight(const VhostMessage& message, size_t fd_count);
// Exactly one descriptor, and nothing else.
loop::Result<loop::UniqueFd> parse_lone_fd(VhostMessage& message);

}  // namespace skiff::devices
