// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/vhost_user/call_line.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <utility>

#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/tsan.h"
#include "loop/unique_fd.h"

namespace skiff::devices {

CallLine::CallLine(loop::EventLoop& home) : home_(home) {
  write_.done = &CallLine::on_written;
  write_.line = this;
  cancel_.done = &CallLine::on_written;
  cancel_.line = this;
}

CallLine::~CallLine() = default;

void CallLine::set(loop::UniqueFd fd) {
  home_.assert_here();
  // With a write under way for the old one it must stay open: its number may be all that the kernel
  // has of it yet.
  if (writing_) {
    if (!old_fd_) old_fd_ = std::move(fd_);
    cancel();
  }
  fd_ = std::move(fd);
}

void CallLine::signal() {
  home_.assert_here();
  if (!fd_) return;
  if (writing_) {
    again_ = true;
    return;
  }
  if (home_.loop().uses_io_uring()) return signal_by_ring();
  signal_directly();
}

void CallLine::signal_by_ring() {
  SKIFF_TSAN_NOTIFIED(fd_.get());
  io_uring_sqe& sqe = *home_.loop().next_sqe(write_);
  sqe.opcode = IORING_OP_WRITE;
  sqe.fd = fd_.get();
  sqe.addr = reinterpret_cast<uint64_t>(&one_);
  sqe.len = sizeof(one_);
  write_name_ = sqe.user_data;
  writing_ = true;
}

// A full counter says all there is to say.
void CallLine::signal_directly() const {
  pollfd room{.fd = fd_.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&room, 1, 0) != 1) return;
  SKIFF_TSAN_NOTIFIED(fd_.get());
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one_, sizeof(one_));
}

void CallLine::cancel() {
  if (cancelling_) return;
  cancelling_ = true;
  io_uring_sqe& sqe = *home_.loop().next_sqe(cancel_);
  sqe.opcode = IORING_OP_ASYNC_CANCEL;
  sqe.fd = -1;
  sqe.addr = write_name_;
}

// Of a write, or of the attempt to cancel one. A write that failed is the peer's loss.
void CallLine::on_written(loop::RingOperation& operation, int32_t /*result*/, uint32_t /*flags*/) {
  CallLine& self = *static_cast<Write&>(operation).line;
  self.home_.assert_here();
  if (&operation == &self.write_)
    self.writing_ = false;
  else
    self.cancelling_ = false;
  if (self.writing_ || self.cancelling_) return;
  self.old_fd_.reset();
  if (self.closed_) {
    self.fd_.reset();
    // The last thing: the owner may be gone when this returns.
    return std::exchange(self.closed_, nullptr)();
  }
  if (std::exchange(self.again_, false)) self.signal();
}

void CallLine::close(std::function<void()> closed) {
  home_.assert_here();
  again_ = false;
  if (!writing_ && !cancelling_) {
    fd_.reset();
    return closed();
  }
  closed_ = std::move(closed);
  if (writing_) cancel();
}

}  // namespace skiff::devices
