// SPDX-License-Identifier: GPL-2.0-or-later
// VhostConnection: a front end's socket to a back end: requests, and their answers within a time.
//
// Blocks, but never for longer than the time-out: a back end may die or be silent at any moment.
// After an error it is of no more use. Thread: one at a time, and no loop that serves anything.
// Ownership: owns the socket.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class VhostConnection {
 public:
  // kNotFound or kIo when nobody listens at `path`.
  static loop::Result<VhostConnection> connect(const std::string& path, int64_t timeout_ns);
  // `peer` for messages.
  VhostConnection(loop::UniqueFd socket, std::string peer, int64_t timeout_ns);

  int fd() const { return socket_.get(); }
  const std::string& peer() const { return peer_; }

  // Sends a request and takes its reply, which is of the same kind. Errors name the peer.
  loop::Result<VhostMessage> call(VhostMessage request, std::span<const int> fds = {});
  // The same for an answer of 8 bytes, without descriptors.
  loop::Result<uint64_t> call_u64(VhostRequest request);
  // Sends a request that has no reply of its own; waits for it to be acknowledged when `acks`.
  loop::Result<void> send(VhostMessage request, std::span<const int> fds, bool acks);

 private:
  loop::Result<void> transmit(const VhostMessage& message, std::span<const int> fds);
  loop::Result<VhostMessage> receive(uint32_t request);
  loop::Result<void> await(short events, int64_t deadline_ns) const;
  loop::Error failed(const VhostMessage& request, const loop::Error& error) const;

  loop::UniqueFd socket_;
  std::string peer_;
  int64_t timeout_ns_;
  VhostReader reader_;
};

}  // namespace skiff::devices
