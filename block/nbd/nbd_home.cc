// SPDX-License-Identifier: GPL-2.0-or-later
// The requests that the home carries.
#include "block/nbd/nbd_home.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/nbd/nbd_channel.h"
#include "block/nbd/nbd_connection.h"
#include "block/nbd/nbd_job.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {

using loop::Result;

NbdHome::NbdHome(loop::EventLoop& loop, loop::WorkerPool& pool, loop::EventNotifier cancel,
                 Options options)
    : home_(loop),
      options_(std::move(options)),
      connector_(loop, pool, std::move(cancel)),
      retry_timer_(loop, loop::Priority::kDevice, [this] { connect(); }),
      outage_timer_(loop, loop::Priority::kDevice, [this] { outage_too_long(); }),
      offer_timer_(loop, loop::Priority::kDevice, [this] { offer_connections(); }) {}

NbdHome::~NbdHome() { SKIFF_CHECK(!connection_); }

void NbdHome::open(OpenCallback opened) {
  home_.assert_here();
  opened_ = std::move(opened);
  connect();
}

void NbdHome::finish_open(Result<Opened> opened) {
  // A connection whose first read failed can still be lost.
  if (!opened_) return;
  if (opened) state_ = State::kUp;
  std::exchange(opened_, nullptr)(std::move(opened));
}

void NbdHome::read_first_bytes() {
  constexpr uint64_t kFirstBytes = 4096;
  first_bytes_.resize(
      std::min({facts_.size_bytes, kFirstBytes, static_cast<uint64_t>(facts_.transfer_bytes_max)}));
  own_command_ = {
      .op = NbdCommand::Op::kRead,
      .bytes = first_bytes_.data(),
      .length_bytes = first_bytes_.size(),
      .done =
          [](NbdCommand& command, int32_t result) {
            auto& self = *static_cast<NbdHome*>(command.owner);
            self.home_.assert_here();
            if (result == NbdCommand::kLost) return;  // The connection says why.
            if (result != 0)
              return self.finish_open(loop::Error::from_errno(-result, "Reading the first bytes"));
            self.finish_open(Opened{self.facts_, std::move(self.first_bytes_)});
          },
      .owner = this};
  connection_->send(own_command_);
}

void NbdHome::close(std::function<void()> closed) {
  home_.assert_here();
  SKIFF_CHECK(parked_.empty() && stalled_.empty());
  if (state_ == State::kDown && unflushed_.count() > 0) {
    SKIFF_LOG(kError,
              "Disk {}: closed while its server is gone; {} writes that it had acknowledged but "
              "not been asked to flush may be lost",
              options_.name, unflushed_.count());
  }
  state_ = State::kClosed;
  retry_timer_.cancel();
  outage_timer_.cancel();
  offer_timer_.cancel();
  negotiation_.reset();
  offer_.reset();
  if (connection_) connection_->close();
  connection_.reset();
  connector_.shut_down(std::move(closed));
}

void NbdHome::submit(NbdJob& job) {
  job.home = this;
  job.run = &NbdHome::on_job;
  job.priority = loop::Priority::kSubmission;
  home_.loop().post(job);
}

void NbdHome::on_job(loop::Message& message) {
  auto& job = static_cast<NbdJob&>(message);
  job.home->home_.assert_here();
  job.home->take(job);
}

void NbdHome::take(NbdJob& job) {
  if (state_ != State::kUp) {
    if (failing_ || state_ == State::kClosed) return answer(job, -EIO);
    parked_.push_back(&job);
    return;
  }
  if (job.request->op == BlockOp::kFlush) {
    if (unflushed_.writes_lost()) return answer(job, -EIO);
    job.flush_mark = unflushed_.mark();
  } else if (job.changes_the_image() && unflushed_.full()) {
    stalled_.push_back(&job);
    return flush_for_room();
  }
  job.start(*connection_, facts_, &NbdHome::on_job_done);
}

void NbdHome::on_job_done(NbdJob& job, int32_t result) { job.home->job_done(job, result); }

void NbdHome::job_done(NbdJob& job, int32_t result) {
  home_.assert_here();
  if (result == NbdCommand::kLost) {
    parked_.push_back(&job);
    return;
  }
  made_progress();
  const bool flushes =
      job.request->op == BlockOp::kFlush || (job.request->fua && !facts_.fua && facts_.flush);
  if (result == 0 && job.changes_the_image() && unflushed_.add(*job.request)) flush_for_room();
  if (result == 0 && job.request->op == BlockOp::kFlush) unflushed_.flushed(job.flush_mark);
  // The server will not say so a second time.
  if (result != 0 && flushes) unflushed_.give_up();
  answer(job, result);
}

void NbdHome::answer(NbdJob& job, int32_t result) {
  job.result = result;
  job.run = &NbdChannel::on_answer;
  job.priority = loop::Priority::kCompletion;
  job.channel->loop().post(job);
}

// Asks the server to keep what it has acknowledged, so that we need not.
void NbdHome::flush_for_room() {
  if (room_flush_in_flight_ || state_ != State::kUp) return;
  room_flush_in_flight_ = true;
  room_flush_mark_ = unflushed_.mark();
  own_command_ = {.op = NbdCommand::Op::kFlush,
                  .done =
                      [](NbdCommand& command, int32_t result) {
                        static_cast<NbdHome*>(command.owner)->on_room_flush_done(result);
                      },
                  .owner = this};
  connection_->send(own_command_);
}

void NbdHome::on_room_flush_done(int32_t result) {
  home_.assert_here();
  room_flush_in_flight_ = false;
  if (result == NbdCommand::kLost) return;
  made_progress();
  if (result == 0) {
    unflushed_.flushed(room_flush_mark_);
  } else {
    SKIFF_LOG(kError,
              "Disk {}: the server could not flush what it had acknowledged; every flush "
              "fails from now on",
              options_.name);
    unflushed_.give_up();
  }
  std::deque<NbdJob*> waiting;
  waiting.swap(stalled_);
  for (NbdJob* job : waiting) take(*job);
}

void NbdHome::made_progress() {
  attempts_ = 0;
  in_outage_ = false;
  failing_ = false;
  outage_timer_.cancel();
}

void NbdHome::post_wish_flush() {
  home_.loop().post([this] {
    home_.assert_here();
    flush_for_room();
  });
}

uint64_t NbdHome::enroll(loop::EventLoop& loop, ChannelToken channel) {
  uint64_t id = 0;
  {
    const loop::MutexLock lock(doors_mutex_);
    id = next_door_++;
    doors_.push_back({id, &loop, std::move(channel)});
  }
  home_.loop().post([this, id] {
    home_.assert_here();
    // When the server is gone, everybody is asked after it has come back.
    if (state_ == State::kUp) wishes_.push_back(id);
    offer_connections();
  });
  return id;
}

void NbdHome::leave(uint64_t channel) {
  {
    const loop::MutexLock lock(doors_mutex_);
    std::erase_if(doors_, [&](const Door& door) { return door.id == channel; });
  }
  post_fast_path_closed(channel);
}

}  // namespace skiff::block
