// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_handle.h"

#include <libnbd.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdint>
#include <string_view>

#include "loop/result.h"

namespace skiff::block {

uint32_t nbd_wanted_events(nbd_handle* handle) {
  const unsigned direction = nbd_aio_get_direction(handle);
  uint32_t events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events |= POLLOUT;
  return events;
}

namespace {

// libnbd 1.14 takes the news of input at its word: without any it waits for the rest of a reply
// that nobody has begun, and sends nothing meanwhile.
bool has_input(nbd_handle* handle) {
  char byte = 0;
  const ssize_t got = recv(nbd_aio_get_fd(handle), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got >= 0 || (errno != EAGAIN && errno != EINTR);
}

}  // namespace

bool nbd_feed(nbd_handle* handle, uint32_t poll_events) {
  // A broken socket is found out by reading or writing it, whichever is waited for.
  constexpr uint32_t kBroken = POLLERR | POLLHUP | POLLNVAL;
  if ((poll_events & (POLLIN | kBroken)) != 0 && (nbd_wanted_events(handle) & POLLIN) != 0 &&
      has_input(handle) && nbd_aio_notify_read(handle) == -1)
    return false;
  // The first call may have changed what it waits for.
  if ((poll_events & (POLLOUT | kBroken)) != 0 && (nbd_wanted_events(handle) & POLLOUT) != 0 &&
      nbd_aio_notify_write(handle) == -1)
    return false;
  return !nbd_is_over(handle);
}

bool nbd_is_over(nbd_handle* handle) {
  return nbd_aio_is_dead(handle) != 0 || nbd_aio_is_closed(handle) != 0;
}

loop::Error nbd_error(std::string_view what) {
  const int os_error = nbd_get_errno();
  const char* text = nbd_get_error();
  std::string_view message = text != nullptr ? text : "the server hung up";
  // Which of its functions it was helps nobody.
  if (message.starts_with("nbd_")) message = message.substr(message.find(' ') + 1);
  const auto kind = loop::Error::from_errno(os_error != 0 ? os_error : EIO, "").kind();
  return loop::Error(kind, fmt::format("{}: {}", what, message), os_error);
}

}  // namespace skiff::block
