// SPDX-License-Identifier: GPL-2.0-or-later
// ControlServer: one JSON object a line over a unix socket, each answered by one.
//
//   {"command": "status", "id": 7}  ->  {"id":7,"ok":true,"state":"running","vcpus":4,...}
//   {"command": "nonsense"}         ->  {"error":"...","ok":false}
//
// Commands: status, pause, resume, reset, power-button, quit, and of a "disk" like "disk0":
// set-faults ("rules" as for --disk fault=), set-submit ("submit" as for --disk), resize-disk
// ("size" like "8G"; without it the size of the file is followed), remove-disk ("force": true,
// "timeout": seconds). add-disk has a "disk" like --disk, or like the configuration file's. Answers
// come in the order in which the commands end; `id`, if given, is handed back. Thread: main loop
// throughout. Ownership:
// borrows loop and machine, both outlive it; owns and removes the socket file.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "vmm/machine_control.h"

namespace skiff::vmm {

class ControlServer {
 public:
  // Replaces a socket file that nobody listens on; kBusy when somebody does.
  static loop::Result<std::unique_ptr<ControlServer>> create(loop::EventLoop& loop,
                                                             MachineControl& machine,
                                                             const std::string& path);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  struct Client;
  ControlServer(loop::EventLoop& loop, MachineControl& machine, loop::UniqueFd listener,
                std::string path);
  void accept_clients();
  void serve(const std::shared_ptr<Client>& client, uint32_t events);
  void handle_line(const std::shared_ptr<Client>& client, const std::string& line);
  using Answer = std::function<void(const nlohmann::json&)>;
  // False when it is no command about a disk.
  bool handle_disk_command(const std::string& command, const nlohmann::json& request,
                           const Answer& answer);
  void flush(Client& client);
  void drop(Client& client);

  loop::EventLoop& loop_;
  MachineControl& machine_;
  loop::UniqueFd listener_;
  std::string path_;
  // Shared with commands that have not ended yet: an answer to a client that is gone is dropped.
  std::list<std::shared_ptr<Client>> clients_;
  loop::FdWatcher accept_watcher_;
};

}  // namespace skiff::vmm
