// SPDX-License-Identifier: GPL-2.0-or-later
// ServerProcess: nbdkit, qemu-nbd or skiff storage as a child, on a unix socket, killed when it
// goes.
//
// Thread: the test's main one (the child dies with it). Ownership: owns the child.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace skiff::block {

class ServerProcess {
 public:
  // Returns once the server accepts connections on `socket`; a failure of the test otherwise.
  ServerProcess(std::vector<std::string> command, std::string socket);
  ~ServerProcess() { kill(); }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  void kill();      // With SIGKILL, and waits for its end.
  int terminate();  // With SIGTERM; its exit status.
  void restart();   // Killed or not.
  const std::string& socket() const { return socket_; }
  std::string url(const std::string& export_name = "") const {
    return "nbd+unix:///" + export_name + "?socket=" + socket_;
  }

 private:
  void start();

  const std::vector<std::string> command_;
  const std::string socket_;
  pid_t pid_ = -1;
};

// Commands that serve on `socket`; `arguments` follow.
std::vector<std::string> nbdkit(const std::string& socket, std::vector<std::string> arguments);
// `clients`: how many at once; above one, qemu-nbd offers multi-conn.
std::vector<std::string> qemu_nbd(const std::string& socket, int clients,
                                  std::vector<std::string> arguments);

}  // namespace skiff::block
