// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/disk_job.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "block/adaptive/adaptive_counters.h"
#include "block/aligned_buffer.h"
#include "block/block_channel.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "vmm/bench/rate_pacer.h"
#include "vmm/bench/request_source.h"

namespace skiff::vmm {
namespace {

using block::BlockOp;
using block::BlockRequest;

constexpr size_t kBufferAlignment = 4096;

// Bytes that no file system or disk takes for a hole or compresses away.
void fill(std::span<std::byte> bytes) {
  uint32_t state = 0x2545f491;
  for (std::byte& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::byte>(state >> 24);
  }
}

}  // namespace

DiskJob::DiskJob(loop::EventLoop& loop, std::unique_ptr<block::BlockChannel> channel,
                 Options options)
    : home_(loop),
      loop_(loop),
      channel_(std::move(channel)),
      options_(options),
      buffers_(options.block_bytes * options.depth, kBufferAlignment),
      slots_(options.depth),
      ready_bh_(loop, loop::Priority::kSubmission,
                [this] {
                  ready_scheduled_ = false;
                  submit_ready(loop_.now_ns());
                }),
      pace_timer_(loop, loop::Priority::kSubmission, [this] { submit_ready(loop_.now_ns()); }) {
  fill(buffers_.bytes());
  idle_.reserve(slots_.size());
  batch_.reserve(slots_.size());
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    slot.job = this;
    slot.memory = {buffers_.data() + i * options.block_bytes, options.block_bytes};
    slot.request.iov = {&slot.memory, 1};
    slot.request.length_bytes = options.block_bytes;
    slot.request.done = &DiskJob::on_done;
    slot.request.owner = &slot;
    idle_.push_back(&slot);
  }
}

DiskJob::~DiskJob() { SKIFF_CHECK(in_flight_ == 0); }

void DiskJob::start(Span span, std::function<void()> on_end) {
  home_.assert_here();
  SKIFF_CHECK(!running_);
  running_ = true;
  span_ = span;
  on_end_ = std::move(on_end);
  const int64_t now_ns = loop_.now_ns();
  if (options_.rate != 0) pacer_.emplace(options_.rate, options_.rate_period_ns, now_ns);
  submit_ready(now_ns);
}

void DiskJob::add_choices(block::AdaptiveTotals& totals) const {
  if (const block::AdaptiveCounters* chosen = channel_->adaptive_counters()) totals.add(*chosen);
}

void DiskJob::stop() {
  home_.assert_here();
  stopping_ = true;
  end_if_idle();
}

void DiskJob::submit_ready(int64_t now_ns) {
  home_.assert_here();
  if (!running_ || stopping_) return;
  if (now_ns >= span_.until_ns) {
    stopping_ = true;
    return end_if_idle();
  }
  while (!idle_.empty()) {
    if (pacer_ && pacer_->next_ns() > now_ns) break;
    Slot& slot = *idle_.back();
    idle_.pop_back();
    // Due then, whenever a slot was free for it.
    prepare(slot, pacer_ ? pacer_->next_ns() : now_ns);
    if (pacer_) pacer_->take();
    batch_.push_back(&slot.request);
  }
  // With no slot free the next completion looks again.
  if (pacer_ && !idle_.empty()) pace_timer_.arm_at(std::min(pacer_->next_ns(), span_.until_ns));
  if (batch_.empty()) return;
  in_flight_ += static_cast<uint32_t>(batch_.size());
  channel_->submit(batch_);
  batch_.clear();
}

void DiskJob::prepare(Slot& slot, int64_t start_ns) {
  const RequestSource::Next next = options_.source.next();
  slot.start_ns = start_ns;
  slot.request.op = next.op;
  slot.request.offset_bytes = next.offset_bytes;
}

void DiskJob::on_done(BlockRequest& request, int32_t result) {
  Slot& slot = *static_cast<Slot*>(request.owner);
  slot.job->finish(slot, result);
}

void DiskJob::finish(Slot& slot, int32_t result) {
  home_.assert_here();
  const int64_t now_ns = loop_.now_ns();
  --in_flight_;
  idle_.push_back(&slot);
  completed_.store(completed_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (result < 0) {
    if (!record_.failure) record_.failure = {slot.request.op, slot.request.offset_bytes, -result};
    stopping_ = true;
  } else if (slot.start_ns >= span_.measure_from_ns) {
    record_.latency.record(now_ns - slot.start_ns);
    ++(slot.request.op == BlockOp::kRead ? record_.reads : record_.writes);
  }
  if (now_ns >= span_.until_ns) stopping_ = true;
  if (stopping_) return end_if_idle();
  // What ends in one turn goes out as one batch in the next, as a guest's queue does it. When
  // nothing is under way there is nothing to wait for.
  if (in_flight_ == 0) return submit_ready(now_ns);
  if (ready_scheduled_) return;
  ready_scheduled_ = true;
  ready_bh_.schedule();
}

void DiskJob::end_if_idle() {
  if (!running_ || in_flight_ != 0) return;
  running_ = false;
  pace_timer_.cancel();
  ready_bh_.cancel();
  record_.end_ns = loop_.now_ns();
  if (pacer_) record_.missed = pacer_->missed_before(std::min(record_.end_ns, span_.until_ns));
  on_end_();
}

}  // namespace skiff::vmm
