// SPDX-License-Identifier: GPL-2.0-or-later
// VhostSession: one front end's connection to a back end, from its first message to its last.
//
// Requests are carried out one after the other, in the order in which they came; one that has to
// bring a ring to rest holds up those behind it. A peer that breaks the protocol is disconnected,
// with a line in the log; a request that merely failed is answered so, if the peer wanted an
// answer.
//
// Thread: main loop. Ownership: owns the socket; borrows rings, memory and device. serve() has
// ended before it goes.
#pragma once

#include <coroutine>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "devices/vhost_user/memory_table.h"
#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/vhost_rings.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class VhostSession {
 public:
  struct Options {
    loop::EventLoop* main_loop = nullptr;
    VirtioDevice* device = nullptr;
    VhostRings* rings = nullptr;
    MemoryTable* memory = nullptr;
    std::string name;  // Of the disk, for messages.
  };
  VhostSession(const Options& options, loop::UniqueFd socket);
  VhostSession(const VhostSession&) = delete;
  VhostSession& operator=(const VhostSession&) = delete;

  // Ends when the peer is gone, or was sent away. All rings are at rest then and nothing of the
  // peer's is mapped.
  loop::Task<void> serve();
  // serve() ends soon.
  void hang_up();
  // Tells the front end that the device's configuration is another one, if it wants to know.
  void config_changed();

 private:
  struct Reply {
    std::optional<VhostMessage> message;  // Nothing: an acknowledgement, if one is wanted.
    loop::UniqueFd fd;
  };
  class SocketWaiter;

  loop::Task<bool> answer(VhostMessage request);
  loop::Task<bool> send(VhostMessage message, int fd);
  loop::Task<loop::Result<Reply>> carry_out(VhostMessage& request);
  loop::Task<loop::Result<void>> carry_out_vring(VhostMessage& request);
  loop::Task<loop::Result<void>> carry_out_memory(VhostMessage& request);
  loop::Result<void> check_allowed(const VhostMessage& request) const;
  loop::Result<uint64_t> get_value(const VhostMessage& request) const;
  loop::Task<loop::Result<void>> set_features(const VhostMessage& request);
  loop::Result<void> set_protocol_features(const VhostMessage& request);
  loop::Result<Reply> get_config(const VhostMessage& request) const;
  loop::Result<void> set_config(const VhostMessage& request);
  loop::Result<Reply> get_inflight(const VhostMessage& request) const;
  loop::Task<loop::Result<void>> set_inflight(VhostMessage& request);
  loop::Result<void> set_backend_channel(VhostMessage& request);

  uint64_t offered_features() const;

  const Options options_;
  const loop::UniqueFd socket_;
  loop::UniqueFd backend_channel_;
  uint64_t protocol_features_ = 0;
  VhostReader reader_;
  std::coroutine_handle<> waiter_;
  loop::FdWatcher watcher_;
};

}  // namespace skiff::devices
