// SPDX-License-Identifier: GPL-2.0-or-later
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "devices/chardev/char_backend.h"
#include "devices/chardev/peer_backend.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "loop/unix_socket.h"

namespace skiff::devices {

loop::Result<std::unique_ptr<CharBackend>> SocketBackend::create(loop::EventLoop& loop,
                                                                 const std::string& path) {
  loop::Result<loop::UniqueFd> listener = loop::listen_unix(path);
  if (!listener) return listener.error();
  return std::unique_ptr<CharBackend>(new SocketBackend(loop, *std::move(listener), path));
}

SocketBackend::SocketBackend(loop::EventLoop& loop, loop::UniqueFd listener, std::string path)
    : PeerBackend(loop),
      path_(std::move(path)),
      listener_(std::move(listener)),
      watcher_(loop, listener_.get(), loop::Priority::kService,
               [this](uint32_t) { on_connection(); }) {}

SocketBackend::~SocketBackend() { ::unlink(path_.c_str()); }

void SocketBackend::wait_for_peer() { watcher_.watch(POLLIN); }

void SocketBackend::on_connection() {
  loop::UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!client) {
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
      SKIFF_LOG_LIMITED(kWarn, "Accepting a client on {} failed: {}", path_,
                        std::generic_category().message(errno));
    return;
  }
  watcher_.watch(0);
  attach(std::move(client));
}

}  // namespace skiff::devices
