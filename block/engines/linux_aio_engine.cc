// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/linux_aio_engine.h"

#include <linux/aio_abi.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "block/engines/aio_context.h"
#include "block/engines/engine_base.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/event_notifier.h"
#include "loop/result.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;
using Verdict = RequestProgress::Verdict;

// As many as a turn's budget has callbacks.
constexpr size_t kReapedAtOnce = 64;

uint64_t address_of(const void* memory) { return reinterpret_cast<uint64_t>(memory); }

}  // namespace

Result<std::unique_ptr<IoEngine>> LinuxAioEngine::create(const IoTarget& target,
                                                         loop::EventLoop& loop,
                                                         loop::WorkerPool& pool) {
  if (!target.direct_io) {
    return Error(ErrorKind::kUnsupported,
                 "Engine linux-aio needs direct=on: without it io_submit() does the I/O itself and "
                 "blocks; add direct=on, or choose threads, io_uring or auto");
  }
  auto context = AioContext::create(kDepth);
  if (!context) return context.error();
  auto notifier = loop::EventNotifier::create();
  if (!notifier) return notifier.error().with_context("Engine linux-aio");
  return std::unique_ptr<IoEngine>(
      new LinuxAioEngine(target, loop, pool, *std::move(context), *std::move(notifier)));
}

LinuxAioEngine::LinuxAioEngine(const IoTarget& target, loop::EventLoop& loop,
                               loop::WorkerPool& pool, AioContext context,
                               loop::EventNotifier notifier)
    : EngineBase(target, loop),
      pool_(pool),
      context_(std::move(context)),
      notifier_(std::move(notifier)),
      reap_bh_(loop, loop::Priority::kCompletion, [this] { reap(); }),
      watch_(loop, notifier_, loop::Priority::kCompletion, [this] { reap(); }) {
  for (Slot& slot : slots_) release(slot);
}

void LinuxAioEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  for (IoRequest* request : batch) {
    if (!begin(*request, Fua::kByFlag)) continue;
    if (belongs_in_pool(*request))
      finish_in_pool(*request, pool_);
    else
      waiting_.push_back(*request);
  }
  if (!completing_) pump();
}

bool LinuxAioEngine::belongs_in_pool(const IoRequest& request) const {
  switch (request.op) {
    case IoOp::kRead:
    case IoOp::kWrite:
      return false;
    case IoOp::kFlush:
      return !can_flush_;
    case IoOp::kDiscard:
    case IoOp::kWriteZeroes:
      return true;
  }
  return true;
}

void LinuxAioEngine::pump() {
  std::array<iocb*, kDepth> batch;
  size_t count = 0;
  while (!waiting_.empty() && free_slots_ != nullptr) {
    Slot& slot = *std::exchange(free_slots_, free_slots_->next_free);
    prepare(slot, waiting_.pop_front());
    batch[count++] = &slot.control;
    if (!waiting_.empty() && free_slots_ != nullptr) continue;
    // Those that were refused leave room for others.
    if (submit_slots({batch.data(), count}) == Pumped::kKernelIsFull) return;
    count = 0;
  }
}

LinuxAioEngine::Pumped LinuxAioEngine::submit_slots(std::span<iocb* const> batch) {
  while (!batch.empty()) {
    const int32_t taken = context_.submit(batch);
    if (taken > 0) {
      in_kernel_ += static_cast<uint32_t>(taken);
      batch = batch.subspan(static_cast<size_t>(taken));
      continue;
    }
    if (taken == -EINTR) continue;
    const bool full = taken == 0 || taken == -EAGAIN;
    if (full && in_kernel_ > 0) {
      put_back(batch);  // The next completion makes room.
      return Pumped::kKernelIsFull;
    }
    Slot& first = *reinterpret_cast<Slot*>(batch.front()->aio_data);
    if (refused(first, full ? -EAGAIN : taken)) continue;
    release(first);
    batch = batch.subspan(1);
  }
  return Pumped::kAll;
}

void LinuxAioEngine::put_back(std::span<iocb* const> batch) {
  // From behind, so that they keep their order.
  for (size_t i = batch.size(); i-- > 0;) {
    Slot& slot = *reinterpret_cast<Slot*>(batch[i]->aio_data);
    waiting_.push_front(*slot.request);
    release(slot);
  }
}

bool LinuxAioEngine::refused(Slot& slot, int32_t error) {
  IoRequest& request = *slot.request;
  RequestProgress& progress = request.in_flight.progress;
  if (error == -EOPNOTSUPP && (slot.control.aio_rw_flags & RWF_NOWAIT) != 0) {
    no_wait_ = false;
    prepare(slot, request);
    return true;
  }
  const bool flush = slot.control.aio_lio_opcode == IOCB_CMD_FDSYNC;
  if (flush && error == -EINVAL) can_flush_ = false;
  // The pool's answer is the file's own, and a worker may wait for what the kernel is short of.
  if (error == -EAGAIN || (flush && error == -EINVAL)) {
    finish_in_pool(request, pool_);
    return false;
  }
  if (progress.advance(error) == Verdict::kFinished) {
    finish_later(request, progress.result());
    return false;
  }
  prepare(slot, request);
  return true;
}

void LinuxAioEngine::prepare(Slot& slot, IoRequest& request) {
  IoInFlight& state = request.in_flight;
  state.progress.next_step(state.step);
  const IoStep& step = state.step;
  slot.request = &request;
  iocb& control = slot.control;
  control = {};
  control.aio_data = address_of(&slot);
  control.aio_fildes = static_cast<uint32_t>(target_.fd);
  control.aio_flags = IOCB_FLAG_RESFD;
  control.aio_resfd = static_cast<uint32_t>(notifier_.fd());
  if (step.op == IoOp::kFlush) {
    control.aio_lio_opcode = IOCB_CMD_FDSYNC;
    return;
  }
  const bool read = step.op == IoOp::kRead;
  control.aio_offset = static_cast<int64_t>(step.offset_bytes);
  if (read && no_wait_) control.aio_rw_flags = RWF_NOWAIT;
  if (step.dsync) control.aio_rw_flags = RWF_DSYNC;
  if (step.iov.size() == 1) {
    control.aio_lio_opcode = read ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
    control.aio_buf = address_of(step.iov.front().iov_base);
    control.aio_nbytes = step.iov.front().iov_len;
  } else {
    control.aio_lio_opcode = read ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV;
    control.aio_buf = address_of(step.iov.data());
    control.aio_nbytes = step.iov.size();
  }
}

void LinuxAioEngine::release(Slot& slot) { slot.next_free = std::exchange(free_slots_, &slot); }

void LinuxAioEngine::reap() {
  home_.assert_here();
  std::array<io_event, kReapedAtOnce> events;
  const uint32_t count = context_.take(events);
  if (count == events.size()) reap_bh_.schedule();  // There may be more, in the next turn.
  RequestList finished;
  for (uint32_t i = 0; i < count; ++i) on_event(events[i], finished);

  // What completions submit goes to the kernel together. The last one's goes alone: its owner may
  // destroy us instead.
  completing_ = true;
  while (!finished.empty()) {
    IoRequest& request = finished.pop_front();
    const bool last = finished.empty();
    if (last) {
      completing_ = false;
      pump();
    }
    finish(request, request.in_flight.progress.result());
    if (last) return;
  }
  completing_ = false;
  pump();
}

void LinuxAioEngine::on_event(const io_event& event, RequestList& finished) {
  Slot& slot = *reinterpret_cast<Slot*>(event.data);
  IoRequest& request = *slot.request;
  const bool no_wait = (slot.control.aio_rw_flags & RWF_NOWAIT) != 0;
  release(slot);
  --in_kernel_;
  const auto result = static_cast<int32_t>(event.res);
  // It would have blocked, and would again.
  if (result == -EAGAIN && no_wait) return finish_in_pool(request, pool_);
  switch (request.in_flight.progress.advance(result)) {
    case Verdict::kMore:
      return waiting_.push_front(request);
    case Verdict::kMoreBlocking:
      return finish_in_pool(request, pool_);
    case Verdict::kFinished:
      return finished.push_back(request);
  }
}

}  // namespace skiff::block
