// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/epoll_backend.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_loop_state.h"
#include "loop/loop_backend.h"
#include "loop/message_list.h"
#include "loop/result.h"
#include "loop/tsan.h"
#include "loop/unique_fd.h"

namespace skiff::loop {
namespace {

static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
              EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP && EPOLLPRI == POLLPRI);

// False if there was nothing. An eventfd that users made may be a blocking one, and another process
// may have emptied it since it was reported.
bool read_counter(int fd) {
  uint64_t count = 0;
  iovec buffer{.iov_base = &count, .iov_len = sizeof(count)};
  ssize_t got = ::preadv2(fd, &buffer, 1, -1, RWF_NOWAIT);
  if (got < 0 && errno == EOPNOTSUPP) {
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 0) != 1) return false;
    got = ::read(fd, &count, sizeof(count));
  }
  if (got != sizeof(count)) return false;
  SKIFF_TSAN_CONSUMED(fd);
  return true;
}

}  // namespace

Result<std::unique_ptr<LoopBackend>> create_epoll_backend(LoopState& state) {
  UniqueFd epoll_fd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_fd) return Error::from_errno(errno, "Creating an epoll descriptor");
  UniqueFd wake_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_fd) return Error::from_errno(errno, "Creating an eventfd");
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (epoll_ctl(epoll_fd.get(), EPOLL_CTL_ADD, wake_fd.get(), &event) != 0)
    return Error::from_errno(errno, "Watching an eventfd");
  return std::unique_ptr<LoopBackend>(
      std::make_unique<EpollBackend>(state, std::move(epoll_fd), std::move(wake_fd)));
}

EpollBackend::EpollBackend(LoopState& state, UniqueFd epoll_fd, UniqueFd wake_fd)
    : state_(state), epoll_fd_(std::move(epoll_fd)), wake_fd_(std::move(wake_fd)) {}

EpollBackend::~EpollBackend() = default;

void EpollBackend::bind() {
  // Timeouts to the microsecond instead of the usual 50; real-time threads have no slack anyway.
  prctl(PR_SET_TIMERSLACK, 1000);
}

int EpollBackend::wait(int64_t timeout_ns) {
  const int room = static_cast<int>(events_.size());
  add_one(state_.enters);
  timespec timeout{.tv_sec = timeout_ns / 1'000'000'000, .tv_nsec = timeout_ns % 1'000'000'000};
  const int count = epoll_pwait2(epoll_fd_.get(), events_.data(), room,
                                 timeout_ns == kForever ? nullptr : &timeout, nullptr);
  if (count >= 0 || errno != ENOSYS) return count;
  // Before Linux 5.11: milliseconds, rounded up, as a timer must not fire early.
  const int64_t timeout_ms = timeout_ns == kForever ? -1 : (timeout_ns + 999'999) / 1'000'000;
  return epoll_wait(
      epoll_fd_.get(), events_.data(), room,
      static_cast<int>(std::min<int64_t>(timeout_ms, std::numeric_limits<int>::max())));
}

void EpollBackend::poll(int64_t timeout_ns) {
  const int count = wait(always_ready_.empty() ? timeout_ns : 0);
  SKIFF_CHECK(count >= 0 || errno == EINTR);
  // All of them before any callback runs: a callback may destroy other sources.
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events_[static_cast<size_t>(i)];
    if (event.data.ptr == nullptr) {
      uint64_t wakes = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_fd_.get(), &wakes, sizeof(wakes));
      continue;
    }
    report(*static_cast<Source*>(event.data.ptr), event.events);
  }
  for (Source* source : always_ready_)
    report(*source, static_cast<Watched*>(source->slot)->always_ready);
}

void EpollBackend::report(Source& source, uint32_t ready) {
  source.ready |= ready;
  state_.polling.descriptors().came = true;
  if (!MessageList::is_linked(source)) state_.arrived(source);
}

void EpollBackend::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_.get(), &one, sizeof(one));
}

void EpollBackend::arm(Source& source) {
  if (source.slot == nullptr) return add(source);
  Watched& watched = *static_cast<Watched*>(source.slot);
  // It is being reported: the count is taken now, so that the next report is of a newer one.
  if (source.kind == Source::Kind::kCounter) {
    read_counter(source.fd);
    return;
  }
  if (watched.wanted == source.wanted) return;
  watched.wanted = source.wanted;
  if (watched.always_ready != 0) {
    if ((watched.always_ready & POLLNVAL) == 0) watched.always_ready = source.wanted;
    return;
  }
  epoll_event event{.events = source.wanted, .data = {.ptr = &source}};
  SKIFF_CHECK(epoll_ctl(epoll_fd_.get(), EPOLL_CTL_MOD, watched.fd, &event) == 0);
}

void EpollBackend::add(Source& source) {
  auto watched = std::make_unique<Watched>();
  watched->fd = source.fd;
  watched->wanted = source.wanted;
  epoll_event event{.events = source.wanted, .data = {.ptr = &source}};
  int result = epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, watched->fd, &event);
  if (result != 0 && errno == EEXIST) {
    watched->duplicate.reset(fcntl(source.fd, F_DUPFD_CLOEXEC, 0));
    watched->fd = watched->duplicate.get();
    result = epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, watched->fd, &event);
  }
  if (result != 0) {
    // A regular file is ready for all that is asked; a bad descriptor is reported as poll(2) does.
    watched->always_ready = errno == EPERM ? source.wanted : uint32_t{POLLNVAL};
    always_ready_.push_back(&source);
  }
  source.slot = watched.release();
}

void EpollBackend::disarm(Source& source) {
  const std::unique_ptr<Watched> watched(static_cast<Watched*>(source.slot));
  source.slot = nullptr;
  if (watched == nullptr) return;
  if (watched->always_ready != 0)
    std::erase(always_ready_, &source);
  else
    epoll_ctl(epoll_fd_.get(), EPOLL_CTL_DEL, watched->fd, nullptr);
}

io_uring_sqe* EpollBackend::next_sqe(RingOperation&) {
  check_failed("a loop without a ring has no SQEs", __FILE__, __LINE__);
}

}  // namespace skiff::loop
