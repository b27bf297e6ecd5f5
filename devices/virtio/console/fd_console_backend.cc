// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/console/fd_console_backend.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "devices/chardev/host_fd.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using loop::UniqueFd;

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
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0)
    return Error::from_errno(errno, fmt::format("Looking at a descriptor of console {}", name));
  if (const int mode = flags & O_ACCMODE; mode != access && mode != O_RDWR)
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("The {} of console {} is not open for {}",
                             access == O_RDONLY ? "input" : "output", name,
                             access == O_RDONLY ? "reading" : "writing"));
  auto host_fd = access == O_RDONLY ? HostFd::share_for_reading(fd.get())
                                    : HostFd::share_for_writing(fd.get());
  if (!host_fd) return host_fd.error();
  end.open = true;
  end.fd = *std::move(host_fd);
  end.lent = std::move(fd);
  return end;
}

size_t FdConsoleBackend::write(std::span<const std::byte> bytes) {
  home_.assert_here();
  if (!output_.fd) return bytes.size();
  size_t taken = 0;
  while (output_.open && taken < bytes.size()) {
    const std::span<const std::byte> rest = bytes.subspan(taken);
    const ssize_t written =
        output_.fd->write({reinterpret_cast<const uint8_t*>(rest.data()), rest.size()});
    if (written >= 0) {
      taken += static_cast<size_t>(written);
    } else if (written == -EAGAIN) {
      arm(output_, POLLOUT);
      return taken;
    } else {
      close_end(output_, static_cast<int>(-written));
    }
  }
  return bytes.size();
}

size_t FdConsoleBackend::read(std::span<std::byte> into) {
  home_.assert_here();
  if (!input_.fd || !input_.open || into.empty()) return 0;
  const ssize_t got = input_.fd->read({reinterpret_cast<uint8_t*>(into.data()), into.size()});
  if (got > 0) return static_cast<size_t>(got);
  if (got == -EAGAIN) {
    arm(input_, POLLIN);
  } else {
    close_end(input_, static_cast<int>(-got));
  }
  return 0;
}

void FdConsoleBackend::arm(End& end, uint32_t events) {
  SKIFF_CHECK(end.fd);
  // Only what was not ready comes here, so never a file, which epoll would refuse.
  if (!end.watcher) {
    end.watcher = std::make_unique<loop::FdWatcher>(
        home_.loop(), end.fd->fd(), loop::Priority::kDevice, [this, &end](uint32_t) {
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
