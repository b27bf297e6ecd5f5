// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_channel.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/nbd/nbd_connection.h"
#include "block/nbd/nbd_export.h"
#include "block/nbd/nbd_handle.h"
#include "block/nbd/nbd_home.h"
#include "block/nbd/nbd_job.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

// A server that still answers gets so long to do it before its connection is cut.
constexpr int64_t kDrainNs = 2'000'000'000;

}  // namespace

NbdChannel::NbdChannel(NbdHome& home, loop::EventLoop& loop, Options options)
    : home_(loop),
      nbd_(home),
      options_(std::move(options)),
      token_(std::make_shared<NbdChannel*>(this)),
      finished_bh_(loop, loop::Priority::kCompletion, [this] { run_finished(); }),
      drained_bh_(loop, loop::Priority::kCompletion, [this] { drained(); }),
      drain_timer_(loop, loop::Priority::kDevice, [this] { drained(); }) {
  id_ = nbd_.enroll(loop, token_);
}

NbdChannel::~NbdChannel() {
  home_.assert_here();
  SKIFF_CHECK(in_flight_ == 0);
  token_.reset();
  if (fast_) fast_->close();
  fast_.reset();
  nbd_.leave(id_);
}

void NbdChannel::submit(std::span<BlockRequest* const> batch) {
  home_.assert_here();
  for (BlockRequest* request : batch) start(*request);
}

void NbdChannel::start(BlockRequest& request) {
  ++in_flight_;
  const int32_t refusal = check(request);
  if (refusal != 0) return finish_later(request, refusal);
  if (request.op == BlockOp::kFlush) {
    // Nothing to ask for; open() has said so.
    if (!nbd_.facts().flush) return finish_later(request, 0);
  } else if (request.length_bytes == 0) {
    return finish_later(request, 0);
  }
  std::unique_ptr<NbdJob> job;
  if (spare_jobs_.empty()) {
    job = std::make_unique<NbdJob>();
  } else {
    job = std::move(spare_jobs_.back());
    spare_jobs_.pop_back();
  }
  job->request = &request;
  job->channel = this;
  NbdJob& started = *job.release();  // finish() takes it back.
  if (may_go_fast(started)) return started.start(*fast_, nbd_.facts(), &NbdChannel::on_fast_done);
  nbd_.submit(started);
}

int32_t NbdChannel::check(const BlockRequest& request) const {
  const NbdExport& facts = nbd_.facts();
  if (request.op == BlockOp::kFlush) return nbd_.unflushed().writes_lost() ? -EIO : 0;
  if (request.op == BlockOp::kStatus && !facts.allocation) return -EOPNOTSUPP;
  const bool reads = request.op == BlockOp::kRead || request.op == BlockOp::kStatus;
  if (!reads && facts.read_only) return -EROFS;
  if (request.op == BlockOp::kDiscard && !facts.trim) return -EOPNOTSUPP;
  if (request.op == BlockOp::kWriteZeroes) {
    if (!facts.zero || (request.no_fallback && !facts.fast_zero)) return -EOPNOTSUPP;
  }
  return check_range(request, facts.size_bytes);
}

bool NbdChannel::may_go_fast(const NbdJob& job) const {
  if (!fast_ || draining_ || job.request->op == BlockOp::kFlush) return false;
  if (!job.changes_the_image()) return true;
  // The home waits for room, and flushes what has no FUA.
  return !nbd_.unflushed().full() && (!job.request->fua || nbd_.facts().fua);
}

void NbdChannel::on_fast_done(NbdJob& job, int32_t result) { job.channel->fast_done(job, result); }

void NbdChannel::fast_done(NbdJob& job, int32_t result) {
  home_.assert_here();
  if (draining_ && fast_->in_flight() == 0) drained_bh_.schedule();
  // Whatever became of it, it is done again when there is a server.
  if (result == NbdCommand::kLost) return nbd_.submit(job);
  if (result == 0 && job.changes_the_image() && nbd_.unflushed().add(*job.request))
    nbd_.post_wish_flush();
  finish(job, result);
}

void NbdChannel::on_answer(loop::Message& message) {
  auto& job = static_cast<NbdJob&>(message);
  job.channel->home_.assert_here();
  job.channel->finish(job, job.result);
}

void NbdChannel::finish(NbdJob& job, int32_t result) {
  BlockRequest& request = *job.request;
  spare_jobs_.emplace_back(&job);
  // A right, not a duty.
  if (request.op == BlockOp::kDiscard && result == -EOPNOTSUPP) result = 0;
  if (result < 0) {
    SKIFF_LOG_LIMITED(
        kError, "Disk {}: {}", options_.name,
        loop::Error::from_errno(-result, fmt::format("request of {} bytes at {}",
                                                     request.length_bytes, request.offset_bytes))
            .message());
  }
  --in_flight_;
  request.done(request, result);
}

void NbdChannel::finish_later(BlockRequest& request, int32_t result) {
  request.in_flight.result = result;
  finished_.push_back(&request);
  finished_bh_.schedule();
}

void NbdChannel::run_finished() {
  home_.assert_here();
  std::vector<BlockRequest*> finished;
  finished.swap(finished_);
  for (BlockRequest* request : finished) {
    --in_flight_;
    request->done(*request, request->in_flight.result);
  }
}

void NbdChannel::adopt_connection(NbdHandle handle) {
  home_.assert_here();
  if (fast_) return;
  draining_ = false;
  fast_ = std::make_unique<NbdConnection>(loop(), std::move(handle), options_.reply_timeout_ns,
                                          [this](const loop::Error& why) { fast_lost(why); });
}

void NbdChannel::fast_lost(const loop::Error& why) {
  home_.assert_here();
  SKIFF_LOG_LIMITED(kInfo, "Disk {}: a queue's own connection ended: {}", options_.name,
                    why.message());
  fast_.reset();
  if (!draining_) return nbd_.post_want_connection(id_);
  drained();
}

void NbdChannel::close_fast_path() {
  home_.assert_here();
  draining_ = true;
  if (!fast_ || fast_->in_flight() == 0) return drained();
  drain_timer_.arm_after(kDrainNs);
}

void NbdChannel::drained() {
  home_.assert_here();
  if (!draining_) return;
  drain_timer_.cancel();
  if (fast_) fast_->close();
  fast_.reset();
  draining_ = false;
  drained_bh_.cancel();
  nbd_.post_fast_path_closed(id_);
}

}  // namespace skiff::block
