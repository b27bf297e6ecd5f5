// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/event_notifier.h"

#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/eventfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_loop_state.h"
#include "loop/loop_backend.h"
#include "loop/message_list.h"
#include "loop/result.h"
#include "loop/tsan.h"
#include "loop/unique_fd.h"

namespace skiff::loop {

Result<EventNotifier> EventNotifier::create() {
  // Blocking: a READ on a ring waits for such a descriptor, while O_NONBLOCK ones may be answered
  // with -EAGAIN.
  UniqueFd fd(eventfd(0, EFD_CLOEXEC));
  if (!fd) return Error::from_errno(errno, "Creating an eventfd");
  return EventNotifier(std::move(fd));
}

Result<EventNotifier> EventNotifier::adopt_foreign(UniqueFd fd) {
  std::array<char, 64> target = {};
  const std::string link = fmt::format("/proc/self/fd/{}", fd.get());
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length < 0) return Error::from_errno(errno, "Looking at an eventfd");
  const std::string_view kind(target.data(), static_cast<size_t>(length));
  if (kind != "anon_inode:[eventfd]")
    return Error(ErrorKind::kInvalidArgument, fmt::format("{} is no eventfd", kind));
  EventNotifier notifier(std::move(fd));
  notifier.is_foreign_ = true;
  return notifier;
}

void EventNotifier::notify() const {
  const uint64_t one = 1;
  SKIFF_TSAN_NOTIFIED(fd_.get());
  // It would block, or fail, only with 2^64 - 2 notifications unread.
  ssize_t written = 0;
  do {
    written = ::write(fd_.get(), &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
  SKIFF_CHECK(written == sizeof(one));
}

bool EventNotifier::consume() const {
  uint64_t count = 0;
  iovec buffer{.iov_base = &count, .iov_len = sizeof(count)};
  ssize_t got = 0;
  do {
    // With two consumers poll() and then read() could block, hence NOWAIT.
    got = ::preadv2(fd_.get(), &buffer, 1, -1, RWF_NOWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EOPNOTSUPP) {
    pollfd ready{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 0) != 1) return false;
    got = ::read(fd_.get(), &count, sizeof(count));
  }
  if (got == sizeof(count)) SKIFF_TSAN_CONSUMED(fd_.get());
  return got == sizeof(count);
}

struct NotifierWatch::Impl : CallbackNode, Source {
  Impl(LoopState& state, const EventNotifier& notifier, Priority of, std::function<void()> to_call)
      : CallbackNode(state), callback(std::move(to_call)) {
    fd = notifier.fd();
    kind = Kind::kCounter;
    gives_back = !notifier.is_foreign();
    wanted = POLLIN;
    priority = of;
    run = [](Message& message) {
      auto& self = static_cast<Impl&>(message);
      self.ready = 0;
      // Armed first: what is notified from here on is a wake of its own.
      self.loop.backend->arm(self);
      self.guarded(self.callback);
    };
    loop.backend->arm(*this);
  }

  std::function<void()> callback;
};

NotifierWatch::NotifierWatch(EventLoop& loop, const EventNotifier& notifier, Priority priority,
                             std::function<void()> callback)
    : impl_(std::make_unique<Impl>(loop.state(), notifier, priority, std::move(callback))) {}

NotifierWatch::~NotifierWatch() {
  impl_->loop.assert_usable();
  impl_->loop.backend->disarm(*impl_);
  if (MessageList::is_linked(*impl_)) MessageList::unlink(*impl_);
  retire(std::move(impl_));
}

}  // namespace skiff::loop
