// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/engines/null_engine.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>

#include "block/engines/engine_base.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"

namespace skiff::block {
namespace {

// As many as a turn's budget has callbacks.
constexpr uint32_t kFinishedAtOnce = 64;

int32_t result_of(const NullDevice& device, const IoRequest& request) {
  return device.result_of(request.op, request.offset_bytes, request.length_bytes);
}

}  // namespace

NullEngine::NullEngine(IoEngineKind kind, const IoTarget& target, loop::EventLoop& loop)
    : EngineBase(target, loop),
      kind_(kind),
      timer_(loop, loop::Priority::kCompletion, [this] { on_timer(); }) {}

void NullEngine::submit(std::span<IoRequest* const> batch) {
  home_.assert_here();
  const NullDevice& device = *target_.null;
  const bool timed = device.has_latency();
  const int64_t now_ns = timed ? home_.loop().now_ns() : 0;
  for (IoRequest* request : batch) {
    if (!begin(*request, Fua::kNo)) continue;
    if (!timed) {
      finish_later(*request, result_of(device, *request));
      continue;
    }
    const uint64_t sequence = next_sequence_++;
    waiting_.push_back({now_ns + device.latency_ns(sequence), sequence, request});
    std::ranges::push_heap(waiting_, std::greater<>());
  }
  arm();
}

void NullEngine::arm() {
  if (waiting_.empty() || waiting_.front().deadline_ns >= armed_for_ns_) return;
  armed_for_ns_ = waiting_.front().deadline_ns;
  timer_.arm_at(armed_for_ns_);
}

void NullEngine::on_timer() {
  home_.assert_here();
  armed_for_ns_ = kNever;
  const int64_t now_ns = home_.loop().now_ns();
  for (uint32_t i = 0; i < kFinishedAtOnce && waiting_.front().deadline_ns <= now_ns; ++i) {
    std::ranges::pop_heap(waiting_, std::greater<>());
    IoRequest& request = *waiting_.back().request;
    waiting_.pop_back();
    // Its owner may destroy us after the last one. If it submits instead, submit() arms the timer.
    const bool last = waiting_.empty();
    finish(request, result_of(*target_.null, request));
    if (last) return;
  }
  arm();
}

}  // namespace skiff::block
