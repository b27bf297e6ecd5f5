// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_connector.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "block/nbd/nbd_url.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::UniqueFd;

// A host that is gone says nothing. It is noticed after about half a minute.
constexpr int kKeepIdleSeconds = 10;
constexpr int kKeepIntervalSeconds = 5;
constexpr int kKeepProbes = 4;
constexpr int kUserTimeoutMs = 30'000;

struct Deadline {
  int64_t at_ns;
  int cancel_fd;
  int left_ms() const {
    return static_cast<int>(std::max<int64_t>((at_ns - loop::log_clock_ns()) / 1'000'000, 0));
  }
};

struct Target {
  int family;
  const sockaddr* address;
  socklen_t length;
  std::string_view name;
};

void set_option(int fd, int level, int option, int value) {
  // Nothing here is needed to work; a socket of another family refuses.
  (void)setsockopt(fd, level, option, &value, sizeof value);
}

void tune_tcp(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdleSeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepIntervalSeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepProbes);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
}

// Waits for `fd`, or with fd -1 for `pause_ms`.
Result<void> wait(int fd, const Deadline& deadline, int pause_ms, std::string_view name) {
  std::array<pollfd, 2> fds = {pollfd{deadline.cancel_fd, POLLIN, 0}, pollfd{fd, POLLOUT, 0}};
  const int left_ms = deadline.left_ms();
  int ready;
  do {
    ready = ::poll(fds.data(), fds.size(), fd >= 0 ? left_ms : std::min(pause_ms, left_ms));
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) return Error::from_errno(errno, fmt::format("Connecting to {}", name));
  if (fds[0].revents != 0)
    return Error(ErrorKind::kCancelled, fmt::format("Connecting to {} was given up", name));
  if (deadline.left_ms() == 0)
    return Error::from_errno(ETIMEDOUT, fmt::format("Connecting to {}", name));
  return {};
}

Result<UniqueFd> connect_one(const Target& target, const Deadline& deadline) {
  UniqueFd fd(socket(target.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return Error::from_errno(errno, "Making a socket");
  int error = connect(fd.get(), target.address, target.length) == 0 ? 0 : errno;
  // A unix socket whose queue of callers is full; there is nothing to wait for but time.
  while (error == EAGAIN) {
    constexpr int kPauseMs = 20;
    SKIFF_RETURN_IF_ERROR(wait(-1, deadline, kPauseMs, target.name));
    error = connect(fd.get(), target.address, target.length) == 0 ? 0 : errno;
  }
  if (error == EINPROGRESS || error == EINTR) {
    SKIFF_RETURN_IF_ERROR(wait(fd.get(), deadline, 0, target.name));
    socklen_t length = sizeof error;
    if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  }
  if (error != 0) {
    std::string hint;
    if (error == ECONNREFUSED || error == ENOENT) hint = " (is the server running?)";
    return Error::from_errno(error, fmt::format("Connecting to {}{}", target.name, hint));
  }
  return fd;
}

Result<UniqueFd> connect_unix(const NbdAddress& address, const Deadline& deadline) {
  sockaddr_un where = {};
  where.sun_family = AF_UNIX;
  SKIFF_CHECK(address.socket.size() < sizeof where.sun_path);
  std::memcpy(where.sun_path, address.socket.data(), address.socket.size());
  return connect_one(
      {AF_UNIX, reinterpret_cast<const sockaddr*>(&where), sizeof where, address.socket}, deadline);
}

Result<UniqueFd> connect_tcp(const NbdAddress& address, const Deadline& deadline) {
  const std::string name = fmt::format("{} port {}", address.host, address.port);
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
  if (status != 0) {
    return Error(ErrorKind::kNotFound,
                 fmt::format("Looking up host {}: {}", address.host, gai_strerror(status)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(found, freeaddrinfo);
  std::optional<Error> last;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    auto fd = connect_one({one->ai_family, one->ai_addr, one->ai_addrlen, name}, deadline);
    if (fd) {
      tune_tcp(fd->get());
      return fd;
    }
    last = fd.error();
  }
  return last ? *last : Error(ErrorKind::kNotFound, fmt::format("{} has no address", name));
}

}  // namespace

Result<UniqueFd> connect_to_nbd(const NbdAddress& address, int64_t timeout_ns, int cancel_fd) {
  const Deadline deadline{loop::log_clock_ns() + timeout_ns, cancel_fd};
  return address.transport == NbdAddress::Transport::kUnix ? connect_unix(address, deadline)
                                                           : connect_tcp(address, deadline);
}

// Owns itself from start() until the pool is done with it.
struct NbdConnector::Attempt : loop::WorkItem {
  NbdConnector* connector = nullptr;
  NbdAddress address;
  int64_t timeout_ns = 0;
  Callback callback;  // Empty once abandoned.
  Result<UniqueFd> result = Error(ErrorKind::kCancelled, "Not tried");
};

NbdConnector::~NbdConnector() { SKIFF_CHECK(under_way_ == 0); }

NbdConnector::Attempt* NbdConnector::start(const NbdAddress& address, int64_t timeout_ns,
                                           Callback done) {
  auto attempt = std::make_unique<Attempt>();
  attempt->run = &NbdConnector::run_on_worker;
  attempt->done = &NbdConnector::on_done;
  attempt->lane = loop::WorkItem::Lane::kLong;
  attempt->connector = this;
  attempt->address = address;
  attempt->timeout_ns = timeout_ns;
  attempt->callback = std::move(done);
  ++under_way_;
  pool_.submit(loop_, *attempt);
  return attempt.release();
}

void NbdConnector::abandon(Attempt& attempt) { attempt.callback = nullptr; }

void NbdConnector::run_on_worker(loop::WorkItem& item) {
  auto& attempt = static_cast<Attempt&>(item);
  attempt.result =
      connect_to_nbd(attempt.address, attempt.timeout_ns, attempt.connector->cancel_.fd());
}

void NbdConnector::on_done(loop::WorkItem& item) {
  const std::unique_ptr<Attempt> attempt(&static_cast<Attempt&>(item));
  NbdConnector& self = *attempt->connector;
  --self.under_way_;
  if (attempt->callback) attempt->callback(std::move(attempt->result));
  if (self.under_way_ == 0 && self.idle_) std::exchange(self.idle_, nullptr)();
}

void NbdConnector::shut_down(std::function<void()> idle) {
  // Never consumed: whoever waits, now or later, is told.
  cancel_.notify();
  if (under_way_ == 0) return idle();
  idle_ = std::move(idle);
}

}  // namespace skiff::block
