// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/block/nbd/server_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "loop/unique_fd.h"

namespace skiff::block {
namespace {

bool accepts(const std::string& socket) {
  const loop::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un where = {};
  where.sun_family = AF_UNIX;
  std::memcpy(where.sun_path, socket.c_str(), socket.size() + 1);
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0;
}

}  // namespace

ServerProcess::ServerProcess(std::vector<std::string> command, std::string socket)
    : command_(std::move(command)), socket_(std::move(socket)) {
  start();
}

void ServerProcess::start() {
  std::vector<char*> words;
  words.reserve(command_.size() + 1);
  for (const std::string& word : command_) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  unlink(socket_.c_str());
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp(words[0], words.data());
    _exit(127);
  }
  ASSERT_GT(pid_, 0);
  // Nobody tells when it listens; it is asked until it does, or has ended.
  for (int tries = 0; tries < 6000 && !accepts(socket_); ++tries) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      FAIL() << command_[0] << " ended with status " << WEXITSTATUS(status)
             << " (127: not installed; run scripts/setup)";
    }
    const timespec pause = {.tv_sec = 0, .tv_nsec = 5'000'000};
    nanosleep(&pause, nullptr);
  }
  ASSERT_TRUE(accepts(socket_)) << command_[0] << " does not listen";
}

void ServerProcess::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

int ServerProcess::terminate() {
  if (pid_ < 0) return -1;
  ::kill(pid_, SIGTERM);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void ServerProcess::restart() {
  kill();
  start();
}

std::vector<std::string> nbdkit(const std::string& socket, std::vector<std::string> arguments) {
  std::vector<std::string> command = {"nbdkit", "--foreground", "--unix", socket};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

std::vector<std::string> qemu_nbd(const std::string& socket, int clients,
                                  std::vector<std::string> arguments) {
  std::vector<std::string> command = {"qemu-nbd",
                                      "--persistent",
                                      "--format=raw",
                                      "--discard=unmap",
                                      "--shared=" + std::to_string(clients),
                                      "--socket=" + socket};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

}  // namespace skiff::block
