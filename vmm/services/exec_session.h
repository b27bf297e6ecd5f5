// SPDX-License-Identifier: GPL-2.0-or-later
// ExecSession: the host's side of --exec and --shell. It tells our init in the guest what to run,
// over the control port, and learns how that ended (firmware/guest_init/protocol.h).
//
// Thread: main loop throughout. Ownership: the run owns it; it outlives the console that its
// backends are attached to.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/console/fd_console_backend.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "vmm/console_ports.h"

namespace skiff::vmm {

// How the command in the guest ended.
struct ExecResult {
  bool started = false;  // Otherwise nothing was run, and `message` says why.
  int status = 0;
  std::string message;
};

class ExecSession {
 public:
  // An empty command asks for a shell on the console. `finished` is called once, when the command
  // has ended and all its output has been passed on; never inside one of our calls.
  static loop::Result<std::unique_ptr<ExecSession>> create(
      loop::EventLoop& loop, const std::string& command,
      std::function<void(const ExecResult&)> finished);
  ~ExecSession();
  ExecSession(const ExecSession&) = delete;
  ExecSession& operator=(const ExecSession&) = delete;

  // The ports that the guest's console device must have for us, in order.
  std::vector<ConsolePortSpec> ports();
  bool has_started() const { return result_.started; }

 private:
  class ControlBackend;

  ExecSession(loop::EventLoop& loop, std::function<void(const ExecResult&)> finished);
  loop::Result<void> add_stream(const char* port, int input_fd, int output_fd);
  void on_reply(const std::string& line);
  void finish_if_done();

  loop::EventLoop& loop_;
  std::function<void(const ExecResult&)> finished_;
  std::unique_ptr<ControlBackend> control_;
  std::vector<std::unique_ptr<devices::FdConsoleBackend>> streams_;
  std::vector<ConsolePortSpec> ports_;  // Of the streams.
  int open_streams_ = 0;                // As the guest has them.
  bool has_ended_ = false;
  ExecResult result_;
};

}  // namespace skiff::vmm
