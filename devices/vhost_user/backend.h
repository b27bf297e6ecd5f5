// SPDX-License-Identifier: GPL-2.0-or-later
// VhostUserBackend: serves one virtio device to vhost-user front ends on a unix socket, one at a
// time; the next may connect when the last one is gone.
//
// Thread: main loop; the device's queues run on their homes. Ownership: owns socket and socket
// file; borrows loops, device and memory, which outlive it. stop() has called back before it goes.
//
//   MemoryTable memory;
//   auto disk = VirtioBlk::create({.memory = &memory.guest(), ...});
//   auto backend = VhostUserBackend::create({.socket = "/run/disk.sock", .device = disk->get(),
//   ...});
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/vhost_user/memory_table.h"
#include "devices/vhost_user/session.h"
#include "devices/vhost_user/vhost_rings.h"
#include "devices/virtio/virtio_device.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/task_scope.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

class VhostUserBackend {
 public:
  struct Options {
    loop::EventLoop* main_loop = nullptr;
    std::string socket;  // Path; a file that nobody listens on is replaced. Empty: serve() only.
    std::string name;    // Of the disk, for messages.
    VirtioDevice* device = nullptr;       // Offers kVirtioRingReset; attached to this.
    MemoryTable* memory = nullptr;        // The device was made with its guest().
    std::vector<loop::EventLoop*> homes;  // Of the device's queues, which never move.
  };

  // kBusy when somebody listens on the socket.
  static loop::Result<std::unique_ptr<VhostUserBackend>> create(Options options);
  ~VhostUserBackend();
  VhostUserBackend(const VhostUserBackend&) = delete;
  VhostUserBackend& operator=(const VhostUserBackend&) = delete;

  // A connection that came another way; false, and closed, when a front end is connected.
  bool serve(loop::UniqueFd connection);
  bool has_front_end() const { return session_.has_value(); }
  // Takes no more connections and sends the present front end away; `stopped` runs when all it had
  // asked for is done and nothing of its memory is mapped.
  void stop(std::function<void()> stopped);

 private:
  VhostUserBackend(Options options, loop::UniqueFd listener);
  void accept();
  loop::Task<void> run_session();
  loop::Task<void> close(std::function<void()> stopped);

  const Options options_;
  VhostRings rings_;
  std::optional<VhostSession> session_;
  loop::UniqueFd listener_;
  std::optional<loop::FdWatcher> accept_watcher_;
  bool stopping_ = false;
  loop::TaskScope sessions_;
  std::optional<loop::TaskScope> closing_;
};

}  // namespace skiff::devices
