// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/host_fd.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

constexpr size_t kNoLimit = std::numeric_limits<ssize_t>::max();

loop::Result<mode_t> file_type(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0)
    return loop::Error::from_errno(errno, "Using descriptor " + std::to_string(fd));
  return status.st_mode & S_IFMT;
}

// MSG_NOSIGNAL exists for sockets only. A handler somebody installed is left alone.
void ignore_sigpipe() {
  struct sigaction action{};
  if (::sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL)
    ::signal(SIGPIPE, SIG_IGN);
}

bool epoll_accepts(int fd) {
  const loop::UniqueFd scratch(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  return !scratch || ::epoll_ctl(scratch.get(), EPOLL_CTL_ADD, fd, &event) == 0 || errno != EPERM;
}

bool polls(int fd, short events) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  return ::poll(&entry, 1, 0) == 1;
}

ssize_t or_errno(ssize_t result) {
  if (result >= 0) return result;
  // Interrupted before anything was moved: as good as not ready, the watcher comes back at once.
  return errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

}  // namespace

HostFd::HostFd(loop::UniqueFd owned, int fd, Mode mode, size_t write_limit_bytes)
    : owned_(std::move(owned)),
      fd_(fd),
      mode_(mode),
      pollable_(epoll_accepts(fd)),
      write_limit_bytes_(write_limit_bytes) {}

loop::Result<HostFd> HostFd::share_for_reading(int fd) {
  const loop::Result<mode_t> type = file_type(fd);
  if (!type) return type.error();
  const Mode mode = *type == S_IFSOCK  ? Mode::kSocket
                    : *type == S_IFREG ? Mode::kPlain
                                       : Mode::kPollFirst;
  return HostFd({}, fd, mode, kNoLimit);
}

loop::Result<HostFd> HostFd::share_for_writing(int fd) {
  const loop::Result<mode_t> type = file_type(fd);
  if (!type) return type.error();
  if (*type == S_IFSOCK) return HostFd({}, fd, Mode::kSocket, kNoLimit);
  if (*type == S_IFREG) return HostFd({}, fd, Mode::kPlain, kNoLimit);
  ignore_sigpipe();
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  loop::UniqueFd own_description(
      ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (own_description) {
    const int own_fd = own_description.get();
    return HostFd(std::move(own_description), own_fd, Mode::kNonBlocking, kNoLimit);
  }
  return HostFd({}, fd, Mode::kPollFirst, *type == S_IFIFO ? size_t{PIPE_BUF} : size_t{1});
}

loop::Result<HostFd> HostFd::own(loop::UniqueFd fd) {
  const loop::Result<mode_t> type = file_type(fd.get());
  if (!type) return type.error();
  const Mode mode = *type == S_IFSOCK  ? Mode::kSocket
                    : *type == S_IFREG ? Mode::kPlain
                                       : Mode::kNonBlocking;
  if (mode == Mode::kNonBlocking) ignore_sigpipe();
  const int number = fd.get();
  return HostFd(std::move(fd), number, mode, kNoLimit);
}

ssize_t HostFd::read(std::span<uint8_t> into) const {
  if (mode_ == Mode::kSocket) return or_errno(::recv(fd_, into.data(), into.size(), MSG_DONTWAIT));
  if (mode_ == Mode::kPollFirst && !polls(fd_, POLLIN)) return -EAGAIN;
  return or_errno(::read(fd_, into.data(), into.size()));
}

ssize_t HostFd::write(std::span<const uint8_t> from) const {
  if (mode_ == Mode::kSocket)
    return or_errno(::send(fd_, from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
  if (mode_ == Mode::kPollFirst && !polls(fd_, POLLOUT)) return -EAGAIN;
  return or_errno(::write(fd_, from.data(), std::min(from.size(), write_limit_bytes_)));
}

}  // namespace skiff::devices
