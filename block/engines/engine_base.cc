// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/engine_base.h"

#include <algorithm>
#include <cstdint>

#include "block/blocking_io.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/worker_pool.h"

namespace skiff::block {
namespace {

// As many as a turn's budget has callbacks.
constexpr uint32_t kFinishedAtOnce = 64;

}  // namespace

EngineBase::EngineBase(const IoTarget& target, loop::EventLoop& loop)
    : target_(target),
      home_(loop),
      finished_bh_(loop, loop::Priority::kCompletion, [this] { run_finished(); }) {}

EngineBase::~EngineBase() { SKIFF_CHECK(in_flight_ == 0); }

bool EngineBase::begin(IoRequest& request, Fua fua) {
  request.in_flight.engine = this;
  ++in_flight_;
  const int32_t refusal = refusal_of(request.op, request.offset_bytes, request.length_bytes);
  if (refusal != 0) {
    finish_later(request, refusal);
    return false;
  }
  request.in_flight.progress.begin(request.op, request.offset_bytes, request.length_bytes,
                                   request.iov, request.fua ? fua : Fua::kNo);
  return true;
}

void EngineBase::finish(IoRequest& request, int32_t result) {
  --in_flight_;
  request.done(request, result);
}

void EngineBase::finish_later(IoRequest& request, int32_t result) {
  request.in_flight.result = result;
  finished_.push_back(request);
  ++finished_count_;
  finished_bh_.schedule();
}

void EngineBase::finish_in_pool(IoRequest& request, loop::WorkerPool& pool) {
  IoInFlight& state = request.in_flight;
  const bool transfer = request.op == IoOp::kRead || request.op == IoOp::kWrite;
  state.work.request = &request;
  state.work.run = &EngineBase::run_on_worker;
  state.work.done = &EngineBase::on_worker_done;
  state.work.lane = transfer ? loop::WorkItem::Lane::kShort : loop::WorkItem::Lane::kLong;
  pool.submit(home_.loop(), state.work);
}

void EngineBase::run_on_worker(loop::WorkItem& item) {
  IoRequest& request = *static_cast<IoInFlight::WorkLink&>(item).request;
  const auto& self = *static_cast<EngineBase*>(request.in_flight.engine);
  request.in_flight.result = run_blocking(self.target_, request, NullWait::kSleep);
}

void EngineBase::on_worker_done(loop::WorkItem& item) {
  IoRequest& request = *static_cast<IoInFlight::WorkLink&>(item).request;
  auto& self = *static_cast<EngineBase*>(request.in_flight.engine);
  self.home_.assert_here();
  self.finish(request, request.in_flight.result);
}

void EngineBase::run_finished() {
  home_.assert_here();
  // Not those that these submit in their turn: they wait for theirs.
  uint32_t left = std::min(finished_count_, kFinishedAtOnce);
  finished_count_ -= left;
  if (finished_count_ > 0) finished_bh_.schedule();
  while (left-- > 0) {
    IoRequest& request = finished_.pop_front();
    finish(request, request.in_flight.result);
  }
}

}  // namespace skiff::block
