// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/console/fd_console_backend.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "loop/log.h"

namespace skiff::devices {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::UniqueFd;

namespace {

constexpr size_t kTransferBytesMax = 64 * 1024;

// A description of our own for the same pipe or terminal; empty when the system refuses.
UniqueFd open_again(int fd, int access) {
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  return UniqueFd(::open(path.c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

}  // namespace

Result<std::unique_ptr<FdConsoleBackend>> FdConsoleBackend::create(Options options) {
  auto input = prepare(std::move(options.input), O_RDONLY, options.name);
  if (!input) return input.error();
  auto output = prepare(std::move(options.output), O_WRONLY, options.name);
  if (!output) return output.error();
  std::unique_ptr<FdConsoleBackend> backend(new FdConsoleBackend(std::move(options)));
  backend->input_ = *std::move(input);
  backend->output_ = *std::move(output);
  return backend;
}

FdConsoleBackend::FdConsoleBackend(Options options)
    : home_(*options.home),
      name_(std::move(options.name)),
      on_guest_changed_(std::move(options.on_guest_changed)) {}

Result<FdConsoleBackend::End> FdConsoleBackend::prepare(UniqueFd fd, int access,
                                                        const std::string& name) {
  End end;
  if (!fd) return end;
  struct stat info;
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fstat(fd.get(), &info) != 0)
    return Error::from_errno(errno, fmt::format("Looking at a descriptor of console {}", name));
  if (const int mode = flags & O_ACCMODE; mode != access && mode != O_RDWR)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("The {} of console {} is not open for {}",
                             access == O_RDONLY ? "input" : "output", name,
                             access == O_RDONLY ? "reading" : "writing"));
  end.open = true;
  end.is_socket = S_ISSOCK(info.st_mode);
  end.write_limit_bytes = kTransferBytesMax;
  const bool is_pipe = S_ISFIFO(info.st_mode);
  if (is_pipe || ::isatty(fd.get()) == 1) {
    if (UniqueFd own = open_again(fd.get(), access))
      fd = std::move(own);
    else
      end.write_limit_bytes = is_pipe ? PIPE_BUF : 1;
  } else if (!end.is_socket && !S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
    end.write_limit_bytes = (flags & O_NONBLOCK) != 0 ? kTransferBytesMax : PIPE_BUF;
  }
  end.fd = std::move(fd);
  return end;
}

bool FdConsoleBackend::is_ready(const End& end, short events) {
  pollfd poll_fd{.fd = end.fd.get(), .events = events, .revents = 0};
  // Files and other things that cannot be polled are always ready. A hang-up or an error is
  // something to be read or written, too: the call says what it is.
  return ::poll(&poll_fd, 1, 0) == 1;
}

size_t FdConsoleBackend::write(std::span<const std::byte> bytes) {
  home_.assert_here();
  size_t taken = 0;
  while (output_.open && taken < bytes.size()) {
    if (!is_ready(output_, POLLOUT)) {
      arm(output_, POLLOUT);
      return taken;
    }
    const size_t count = std::min(bytes.size() - taken, output_.write_limit_bytes);
    const void* from = bytes.data() + taken;
    const ssize_t written = output_.is_socket
                                ? ::send(output_.fd.get(), from, count, MSG_DONTWAIT | MSG_NOSIGNAL)
                                : ::write(output_.fd.get(), from, count);
    if (written >= 0) {
      taken += static_cast<size_t>(written);
    } else if (errno == EAGAIN) {
      arm(output_, POLLOUT);
      return taken;
    } else if (errno != EINTR) {
      close_end(output_, errno);
    }
  }
  return bytes.size();
}

size_t FdConsoleBackend::read(std::span<std::byte> into) {
  home_.assert_here();
  while (input_.open && !into.empty()) {
    if (!is_ready(input_, POLLIN)) break;
    const size_t count = std::min(into.size(), kTransferBytesMax);
    const ssize_t got = input_.is_socket ? ::recv(input_.fd.get(), into.data(), count, MSG_DONTWAIT)
                                         : ::read(input_.fd.get(), into.data(), count);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) {
      close_end(input_, 0);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      close_end(input_, errno);
    }
  }
  if (input_.open) arm(input_, POLLIN);
  return 0;
}

void FdConsoleBackend::arm(End& end, uint32_t events) {
  // Only what was not ready comes here, so never a file, which epoll would refuse.
  if (!end.watcher) {
    end.watcher = std::make_unique<loop::FdWatcher>(
        home_.loop(), end.fd.get(), loop::Priority::kDevice, [this, &end](uint32_t) {
          home_.assert_here();
          end.watcher->watch(0);
          if (listener_ == nullptr) return;
          if (&end == &input_)
            listener_->input_ready();
          else
            listener_->output_ready();
        });
  }
  end.watcher->watch(events);
}

void FdConsoleBackend::close_end(End& end, int os_error) {
  end.open = false;
  // A terminal that hangs up gives EIO, and a reader who leaves EPIPE: no failures of ours.
  if (os_error != 0 && os_error != EIO && os_error != EPIPE)
    SKIFF_LOG_LIMITED(
        kWarn, "{}",
        Error::from_errno(
            os_error, fmt::format("{} console {}", &end == &input_ ? "Reading" : "Writing", name_))
            .message());
  if (!is_open() && listener_ != nullptr) listener_->host_changed();
}

void FdConsoleBackend::guest_changed(bool open) {
  home_.assert_here();
  if (on_guest_changed_) on_guest_changed_(open);
}

}  // namespace skiff::devices
