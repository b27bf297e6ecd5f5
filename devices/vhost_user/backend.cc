// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/backend.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <utility>

#include "devices/vhost_user/session.h"
#include "devices/vhost_user/vhost_rings.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/task.h"
#include "loop/unique_fd.h"
#include "loop/unix_socket.h"

namespace skiff::devices {

using loop::Result;
using loop::Task;
using loop::UniqueFd;

Result<std::unique_ptr<VhostUserBackend>> VhostUserBackend::create(Options options) {
  UniqueFd listener;
  if (!options.socket.empty()) {
    auto listening = loop::listen_unix(options.socket);
    if (!listening) return listening.error();
    listener = *std::move(listening);
  }
  return std::unique_ptr<VhostUserBackend>(
      new VhostUserBackend(std::move(options), std::move(listener)));
}

VhostUserBackend::VhostUserBackend(Options options, UniqueFd listener)
    : options_(std::move(options)),
      rings_({.main_loop = options_.main_loop,
              .device = options_.device,
              .memory = options_.memory,
              .homes = options_.homes,
              .config_changed =
                  [this] {
                    if (session_) session_->config_changed();
                  }}),
      listener_(std::move(listener)),
      sessions_(*options_.main_loop) {
  if (!listener_) return;
  accept_watcher_.emplace(*options_.main_loop, listener_.get(), loop::Priority::kDevice,
                          [this](uint32_t) { accept(); });
  accept_watcher_->watch(POLLIN);
}

VhostUserBackend::~VhostUserBackend() {
  if (listener_) ::unlink(options_.socket.c_str());
}

void VhostUserBackend::accept() {
  UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (connection) serve(std::move(connection));
}

bool VhostUserBackend::serve(UniqueFd connection) {
  if (session_ || stopping_) return false;
  const int flags = ::fcntl(connection.get(), F_GETFL);
  if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) < 0) return false;
  // Others wait in the socket's backlog.
  if (accept_watcher_) accept_watcher_->watch(0);
  session_.emplace(VhostSession::Options{.main_loop = options_.main_loop,
                                         .device = options_.device,
                                         .rings = &rings_,
                                         .memory = options_.memory,
                                         .name = options_.name},
                   std::move(connection));
  SKIFF_LOG(kInfo, "{}: A front end has connected", options_.name);
  sessions_.spawn(run_session());
  return true;
}

Task<void> VhostUserBackend::run_session() {
  co_await session_->serve();
  SKIFF_LOG(kInfo, "{}: The front end is gone", options_.name);
  session_.reset();
  if (accept_watcher_ && !stopping_) accept_watcher_->watch(POLLIN);
}

void VhostUserBackend::stop(std::function<void()> stopped) {
  SKIFF_CHECK(!stopping_);
  stopping_ = true;
  accept_watcher_.reset();
  if (session_) session_->hang_up();
  closing_.emplace(*options_.main_loop);
  closing_->spawn(close(std::move(stopped)));
}

Task<void> VhostUserBackend::close(std::function<void()> stopped) {
  co_await sessions_.close();
  // In a later turn: this frame ends first, and the owner may destroy us then.
  options_.main_loop->post(std::move(stopped));
}

}  // namespace skiff::devices
