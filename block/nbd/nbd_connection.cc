// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_connection.h"

#include <libnbd.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "block/nbd/nbd_handle.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::block {

using loop::Error;

NbdConnection::NbdConnection(loop::EventLoop& loop, NbdHandle handle, int64_t reply_timeout_ns,
                             LostCallback lost)
    : home_(loop),
      handle_(std::move(handle)),
      lost_(std::move(lost)),
      reply_timeout_ns_(reply_timeout_ns),
      watcher_(std::make_unique<loop::FdWatcher>(
          loop, nbd_aio_get_fd(handle_.get()), loop::Priority::kCompletion,
          [this](uint32_t poll_events) { on_ready(poll_events); })),
      settle_bh_(loop, loop::Priority::kCompletion, [this] { settle(); }),
      progress_timer_(loop, loop::Priority::kDevice, [this] { check_progress(); }) {
  watcher_->watch(nbd_wanted_events(handle_.get()));
}

NbdConnection::~NbdConnection() {
  SKIFF_CHECK(in_flight() == 0);
  watcher_.reset();
}

void NbdConnection::send(NbdCommand& command) {
  home_.assert_here();
  command.connection = this;
  command.index = in_flight_.size();
  in_flight_.push_back(&command);
  if (ended_) {
    complete(command, NbdCommand::kLost);
    return settle_bh_.schedule();
  }
  if (reply_timeout_ns_ > 0 && !progress_timer_.is_armed()) {
    replies_seen_ = replies_;
    progress_timer_.arm_after(reply_timeout_ns_);
  }
  if (issue(command) == -1) {
    const int32_t result = -nbd_get_errno();
    complete(command, nbd_is_over(handle_.get()) || result == 0 ? NbdCommand::kLost : result);
  }
  // libnbd may have sent it at once, and found out that nobody listens.
  if (nbd_is_over(handle_.get()))
    ended_ = nbd_error("Sending a request");
  else
    watcher_->watch(nbd_wanted_events(handle_.get()));
  if (ended_ || !completed_.empty()) settle_bh_.schedule();
}

int64_t NbdConnection::issue(NbdCommand& command) {
  nbd_handle* handle = handle_.get();
  const nbd_completion_callback done = {
      .callback = &NbdConnection::on_complete, .user_data = &command, .free = nullptr};
  switch (command.op) {
    case NbdCommand::Op::kRead:
      return nbd_aio_pread(handle, command.bytes, command.length_bytes, command.offset_bytes, done,
                           command.flags);
    case NbdCommand::Op::kWrite:
      return nbd_aio_pwrite(handle, command.bytes, command.length_bytes, command.offset_bytes, done,
                            command.flags);
    case NbdCommand::Op::kFlush:
      return nbd_aio_flush(handle, done, command.flags);
    case NbdCommand::Op::kTrim:
      return nbd_aio_trim(handle, command.length_bytes, command.offset_bytes, done, command.flags);
    case NbdCommand::Op::kZero:
      return nbd_aio_zero(handle, command.length_bytes, command.offset_bytes, done, command.flags);
    case NbdCommand::Op::kStatus: {
      command.extent_bytes = 0;
      const nbd_extent_callback extent = {
          .callback = &NbdConnection::on_extent, .user_data = &command, .free = nullptr};
      return nbd_aio_block_status(handle, command.length_bytes, command.offset_bytes, extent, done,
                                  command.flags);
    }
  }
  return -1;
}

// libnbd holds its lock while it calls these two: they only take notes.
// NOLINTNEXTLINE(readability-function-size): the parameters are libnbd's.
int NbdConnection::on_extent(void* command, const char* context, uint64_t /*offset_bytes*/,
                             uint32_t* entries, size_t entry_count, int* /*error*/) {
  auto& self = *static_cast<NbdCommand*>(command);
  if (std::string_view(context) != LIBNBD_CONTEXT_BASE_ALLOCATION || entry_count < 2) return 0;
  self.extent_bytes = entries[0];
  self.extent_flags = entries[1];
  return 0;
}

int NbdConnection::on_complete(void* command, int* error) {
  auto& self = *static_cast<NbdCommand*>(command);
  self.connection->complete(self, *error == 0 ? 0 : -*error);
  return 1;  // libnbd forgets it.
}

void NbdConnection::complete(NbdCommand& command, int32_t result) {
  SKIFF_CHECK(in_flight_[command.index] == &command);
  in_flight_[command.index] = in_flight_.back();
  in_flight_[command.index]->index = command.index;
  in_flight_.pop_back();
  command.result = result;
  completed_.push_back(&command);
  if (result != NbdCommand::kLost) ++replies_;
}

void NbdConnection::on_ready(uint32_t poll_events) {
  home_.assert_here();
  if (ended_) return;
  // libnbd takes one reply a call. Bounded: other devices live on this loop.
  constexpr int kRepliesMax = 64;
  for (int budget = kRepliesMax; budget > 0; --budget) {
    const size_t before = completed_.size();
    if (!nbd_feed(handle_.get(), poll_events) && nbd_is_over(handle_.get())) {
      ended_ = nbd_error("The connection ended");
      break;
    }
    if (completed_.size() == before) break;
    poll_events = POLLIN;
  }
  settle();
}

// Hands out what has ended, and ends what cannot any more.
void NbdConnection::settle() {
  home_.assert_here();
  for (const NbdCommand* command : completed_) {
    // The server says that it is going down: the next one may do it.
    if (command->result == -ESHUTDOWN && !ended_)
      ended_ = Error(loop::ErrorKind::kIo, "The server is shutting down", ESHUTDOWN);
  }
  if (!ended_) {
    deliver();
    if (handle_ && !ended_) watcher_->watch(nbd_wanted_events(handle_.get()));
    return;
  }
  drop_handle();
  while (!in_flight_.empty()) complete(*in_flight_.back(), NbdCommand::kLost);
  deliver();
  // What was sent in there has ended as well, and comes back here.
  if (in_flight() > 0) return;
  settle_bh_.cancel();
  const Error why = *ended_;
  if (lost_) std::exchange(lost_, nullptr)(why);  // The last thing: we may be gone.
}

void NbdConnection::deliver() {
  std::vector<NbdCommand*> ready;
  ready.swap(completed_);
  for (NbdCommand* command : ready) {
    const int32_t result = command->result == -ESHUTDOWN ? NbdCommand::kLost : command->result;
    command->done(*command, result);
  }
}

void NbdConnection::drop_handle() {
  progress_timer_.cancel();
  watcher_.reset();
  handle_.reset();
}

void NbdConnection::close() {
  home_.assert_here();
  lost_ = nullptr;
  if (handle_ && !ended_ && in_flight() == 0) (void)nbd_aio_disconnect(handle_.get(), 0);
  ended_ = Error(loop::ErrorKind::kCancelled, "The connection was closed");
  drop_handle();
  while (in_flight() > 0) {
    while (!in_flight_.empty()) complete(*in_flight_.back(), NbdCommand::kLost);
    deliver();
  }
  settle_bh_.cancel();
}

void NbdConnection::check_progress() {
  home_.assert_here();
  if (ended_ || in_flight_.empty()) return;
  if (replies_ != replies_seen_) {
    replies_seen_ = replies_;
    return progress_timer_.arm_after(reply_timeout_ns_);
  }
  ended_ = Error::from_errno(ETIMEDOUT, fmt::format("The server has not answered for {} s",
                                                    reply_timeout_ns_ / 1'000'000'000));
  settle();
}

}  // namespace skiff::block
