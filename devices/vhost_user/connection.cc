// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "devices/vhost_user/message.h"
#include "devices/vhost_user/protocol.h"
#include "loop/clock.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::UniqueFd;

int64_t now_ns() { return loop::MonotonicClock().now_ns(); }

}  // namespace

Result<VhostConnection> VhostConnection::connect(const std::string& path, int64_t timeout_ns) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("\"{}\": A socket path has 1 to {} characters", path,
                             sizeof(address.sun_path) - 1));
  std::memcpy(address.sun_path, path.data(), path.size());
  // A blocking one for the moment: it waits while others are in the back end's backlog.
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return Error::from_errno(errno, path);
  const timeval patience{.tv_sec = timeout_ns / 1'000'000'000,
                         .tv_usec = timeout_ns % 1'000'000'000 / 1000};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return Error::from_errno(errno, fmt::format("Connecting to the vhost-user back end {}", path));
  }
  return VhostConnection(std::move(socket), path, timeout_ns);
}

VhostConnection::VhostConnection(UniqueFd socket, std::string peer, int64_t timeout_ns)
    : socket_(std::move(socket)), peer_(std::move(peer)), timeout_ns_(timeout_ns) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  ::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
}

Error VhostConnection::failed(const VhostMessage& request, const Error& error) const {
  return error.with_context(
      fmt::format("Vhost-user back end {}: {}", peer_, vhost_request_name(request.kind())));
}

Result<VhostMessage> VhostConnection::call(VhostMessage request, std::span<const int> fds) {
  auto sent = transmit(request, fds);
  if (!sent) return failed(request, sent.error());
  auto reply = receive(request.request);
  if (!reply) return failed(request, reply.error());
  return reply;
}

Result<uint64_t> VhostConnection::call_u64(VhostRequest request) {
  VhostMessage message;
  message.request = static_cast<uint32_t>(request);
  auto reply = call(std::move(message));
  if (!reply) return reply.error();
  auto value = parse_u64(*reply);
  if (!value) return failed(*reply, value.error());
  return value;
}

Result<void> VhostConnection::send(VhostMessage request, std::span<const int> fds, bool acks) {
  request.needs_reply = acks;
  auto sent = transmit(request, fds);
  if (!sent) return failed(request, sent.error());
  if (!acks) return {};
  auto reply = receive(request.request);
  if (!reply) return failed(request, reply.error());
  const auto status = parse_u64(*reply);
  if (!status) return failed(request, status.error());
  if (*status != 0)
    return failed(request, Error(ErrorKind::kIo, "The back end could not do it; see its messages"));
  return {};
}

Result<void> VhostConnection::await(short events, int64_t deadline_ns) const {
  while (true) {
    const int64_t left_ns = deadline_ns - now_ns();
    if (left_ns <= 0)
      return Error(ErrorKind::kIo, fmt::format("No answer within {} ms", timeout_ns_ / 1'000'000));
    pollfd ready{.fd = socket_.get(), .events = events, .revents = 0};
    const int64_t left_ms = std::min<int64_t>((left_ns + 999'999) / 1'000'000, INT32_MAX);
    const int found = ::poll(&ready, 1, static_cast<int>(left_ms));
    if (found > 0) return {};
    if (found < 0 && errno != EINTR) return Error::from_errno(errno, "Waiting");
  }
}

Result<void> VhostConnection::transmit(const VhostMessage& message, std::span<const int> fds) {
  const int64_t deadline_ns = now_ns() + timeout_ns_;
  VhostWriter writer(message, fds);
  while (true) {
    auto sent = writer.write(socket_.get());
    if (!sent) return sent.error();
    if (*sent) return {};
    SKIFF_RETURN_IF_ERROR(await(POLLOUT, deadline_ns));
  }
}

Result<VhostMessage> VhostConnection::receive(uint32_t request) {
  const int64_t deadline_ns = now_ns() + timeout_ns_;
  while (true) {
    auto message = reader_.read(socket_.get());
    if (!message) return message.error();
    if (message->has_value()) {
      if ((*message)->is_reply && (*message)->request == request) return *std::move(*message);
      return Error(ErrorKind::kCorrupt,
                   fmt::format("The answer is of kind {}, not {}", (*message)->request, request));
    }
    SKIFF_RETURN_IF_ERROR(await(POLLIN, deadline_ns));
  }
}

}  // namespace skiff::devices
