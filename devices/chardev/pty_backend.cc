// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "devices/chardev/char_backend.h"
#include "devices/chardev/peer_backend.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

// A pty says nothing when its slave is opened, so it is looked at.
constexpr int64_t kLookNs = 200'000'000;

std::string read_link(const std::string& path) {
  std::array<char, 4096> target;
  const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
  return length < 0 ? std::string() : std::string(target.data(), static_cast<size_t>(length));
}

// Replaces a link that an earlier run left behind, and nothing else.
loop::Result<void> make_link(const std::string& target, const std::string& link) {
  struct stat status{};
  if (::lstat(link.c_str(), &status) == 0) {
    if (!S_ISLNK(status.st_mode) || !read_link(link).starts_with("/dev/pts/"))
      return loop::Error(loop::ErrorKind::kBusy, "Linking a pty to " + link +
                                                     ": something else lies there; remove it or "
                                                     "choose another name");
    ::unlink(link.c_str());
  }
  if (::symlink(target.c_str(), link.c_str()) != 0)
    return loop::Error::from_errno(errno, "Linking a pty to " + link);
  return {};
}

// Once opened and closed, the slave reports "nobody there" until somebody comes. Raw, so that the
// line discipline neither echoes what the guest prints nor turns its bytes into others.
loop::Result<void> prepare_slave(const std::string& path) {
  const loop::UniqueFd slave(::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) return loop::Error::from_errno(errno, "Opening the slave of a new pty");
  termios mode{};
  if (::tcgetattr(slave.get(), &mode) != 0)
    return loop::Error::from_errno(errno, "Reading the mode of a new pty");
  ::cfmakeraw(&mode);
  if (::tcsetattr(slave.get(), TCSANOW, &mode) != 0)
    return loop::Error::from_errno(errno, "Putting a new pty into raw mode");
  return {};
}

}  // namespace

loop::Result<std::unique_ptr<CharBackend>> PtyBackend::create(loop::EventLoop& loop,
                                                              const std::string& link) {
  loop::UniqueFd master(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  std::array<char, 128> path{};
  if (!master || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0 ||
      ::ptsname_r(master.get(), path.data(), path.size()) != 0)
    return loop::Error::from_errno(errno, "Making a pty");
  SKIFF_RETURN_IF_ERROR(prepare_slave(path.data()));
  std::unique_ptr<PtyBackend> backend(new PtyBackend(loop, std::move(master), path.data()));
  if (!link.empty()) {
    SKIFF_RETURN_IF_ERROR(make_link(path.data(), link));
    backend->link_ = link;
  }
  SKIFF_LOG(kInfo, "Made {}", backend->description());
  return std::unique_ptr<CharBackend>(std::move(backend));
}

PtyBackend::PtyBackend(loop::EventLoop& loop, loop::UniqueFd master, std::string slave_path)
    : PeerBackend(loop),
      slave_path_(std::move(slave_path)),
      master_(std::move(master)),
      look_timer_(loop, loop::Priority::kService, [this] { look_for_peer(); }) {}

PtyBackend::~PtyBackend() {
  if (!link_.empty() && read_link(link_) == slave_path_) ::unlink(link_.c_str());
}

void PtyBackend::wait_for_peer() { look_timer_.arm_after(kLookNs); }

void PtyBackend::look_for_peer() {
  pollfd entry{.fd = master_.get(), .events = POLLIN, .revents = 0};
  const bool polled = ::poll(&entry, 1, 0) >= 0;
  // Somebody who wrote and left between two looks left bytes to read.
  if (polled && ((entry.revents & POLLHUP) == 0 || (entry.revents & POLLIN) != 0)) {
    loop::UniqueFd stream(::fcntl(master_.get(), F_DUPFD_CLOEXEC, 0));
    if (stream) return attach(std::move(stream));
  }
  look_timer_.arm_after(kLookNs);
}

}  // namespace skiff::devices
