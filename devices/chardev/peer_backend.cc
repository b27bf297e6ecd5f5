// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/chardev/peer_backend.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "devices/chardev/char_backend.h"
#include "devices/chardev/host_fd.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"
#include "loop/unique_fd.h"

namespace skiff::devices {
namespace {

// A half-closed stream is watched by time: the loop's watcher would report it without end.
constexpr int64_t kHangUpCheckNs = 250'000'000;

}  // namespace

PeerBackend::PeerBackend(loop::EventLoop& loop)
    : loop_(loop),
      gone_bh_(loop, loop::Priority::kDevice, [this] { on_peer_gone(); }),
      hang_up_timer_(loop, loop::Priority::kDevice, [this] { check_hang_up(); }) {}

void PeerBackend::start(CharSink& sink) {
  sink_ = &sink;
  sink_->on_peer_changed(false);
  wait_for_peer();
}

size_t PeerBackend::write(std::span<const uint8_t> data) {
  if (!output_ || leaving_) return 0;  // The next peer gets it.
  const ssize_t taken = output_->write(data);
  if (taken >= 0) return static_cast<size_t>(taken);
  leaving_ = true;
  gone_bh_.schedule();
  return 0;
}

void PeerBackend::resume_input() {
  if (input_) input_->resume();
}

void PeerBackend::attach(loop::UniqueFd stream) {
  // Two descriptors, as each direction is watched for itself and epoll knows a descriptor once.
  loop::UniqueFd second(::fcntl(stream.get(), F_DUPFD_CLOEXEC, 0));
  loop::Result<HostFd> in = HostFd::own(std::move(stream));
  loop::Result<HostFd> out = HostFd::own(std::move(second));
  if (!in || !out) {
    SKIFF_LOG_LIMITED(kWarn, "No descriptors left for the client of {}", description());
    return wait_for_peer();
  }
  leaving_ = false;
  output_.emplace(loop_, *std::move(out), [this] { sink_->on_writable(); });
  input_.emplace(
      loop_, *std::move(in),
      FdInput::Callbacks{.room = [this] { return sink_->input_room(); },
                         .data = [this](std::span<const uint8_t> data) { sink_->on_input(data); },
                         .ended = [this](int) { on_input_ended(); }});
  sink_->on_peer_changed(true);
  input_->resume();
}

// The peer sends no more, but may still read (`echo hi | nc -U`): it is gone when it hangs up.
void PeerBackend::on_input_ended() { check_hang_up(); }

void PeerBackend::check_hang_up() {
  if (leaving_ || !input_) return;
  pollfd entry{.fd = input_->fd().fd(), .events = 0, .revents = 0};
  if (::poll(&entry, 1, 0) == 0) return hang_up_timer_.arm_after(kHangUpCheckNs);
  leaving_ = true;
  gone_bh_.schedule();
}

void PeerBackend::on_peer_gone() {
  hang_up_timer_.cancel();
  input_.reset();
  output_.reset();
  sink_->on_peer_changed(false);
  wait_for_peer();
}

}  // namespace skiff::devices
