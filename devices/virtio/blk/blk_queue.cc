// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/blk/blk_queue.h"

#include <linux/virtio_blk.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "block/block_channel.h"
#include "block/error_policy.h"
#include "block/iovec_copy.h"
#include "devices/virtio/blk/blk_command.h"
#include "devices/virtio/blk/blk_metrics.h"
#include "devices/virtio/blk/queue_home.h"
#include "devices/virtio/queue_metrics.h"
#include "devices/virtio/queue_runner.h"
#include "loop/check.h"
#include "loop/event_loop.h"

namespace skiff::devices {

using Served = QueueHandler::Served;

BlkQueue::BlkQueue(const QueueHome& home, uint16_t size_max, BlkShared& shared)
    : home_(*home.loop), mode_(home.mode), shared_(shared), slots_(size_max + size_t{1}) {
  for (Slot& slot : slots_) {
    slot.queue = this;
    slot.io.done = &BlkQueue::on_io_done;
    slot.io.owner = &slot;
    slot.next_free = std::exchange(free_, &slot);
  }
  batch_.reserve(size_max);
}

void BlkQueue::start(uint64_t features) {
  const auto agreed = [features](unsigned bit) { return (features >> bit & 1) != 0; };
  home_.assert_here();
  stopping_ = false;
  pauses_ = 0;
  rules_ = {.discard = agreed(VIRTIO_BLK_F_DISCARD),
            .write_zeroes = agreed(VIRTIO_BLK_F_WRITE_ZEROES),
            .may_unmap = shared_.may_unmap,
            .capacity_bytes = shared_.image->size_bytes()};
  can_flush_ = agreed(VIRTIO_BLK_F_FLUSH);
}

void BlkQueue::enter(const QueueHome& home, std::unique_ptr<block::BlockChannel> channel) {
  home_ = loop::Home(*home.loop);
  home_.assert_here();
  SKIFF_CHECK(channel_ == nullptr);
  mode_ = home.mode;
  channel_ = std::move(channel);
}

void BlkQueue::set_mode(SubmitMode mode) {
  home_.assert_here();
  mode_ = mode;
}

void BlkQueue::leave() {
  home_.assert_here();
  SKIFF_CHECK(in_flight_ == 0);
  channel_.reset();
  blocked_ = nullptr;
}

void BlkQueue::stopping() {
  home_.assert_here();
  stopping_ = true;
  retry_asked_ = false;
  if (channel_) channel_->hurry();
  for (Slot* slot = take_parked(); slot != nullptr;) {
    Slot& ended = *std::exchange(slot, slot->next_free);
    finish(ended, BlkStatus::kIoError);
  }
}

void BlkQueue::pause() {
  home_.assert_here();
  ++pauses_;
}

void BlkQueue::go_on() {
  home_.assert_here();
  SKIFF_CHECK(pauses_ > 0);
  if (--pauses_ > 0) return;
  // The size is what a pause may be for.
  rules_.capacity_bytes = shared_.image->size_bytes();
  if (std::exchange(retry_asked_, false)) retry();
  // Whatever the guest added meanwhile, with a kick or without.
  if (QueueRunner* runner = std::exchange(blocked_, nullptr)) runner->schedule();
}

void BlkQueue::when_idle(std::function<void()> idle) {
  home_.assert_here();
  idle_waiters_.push_back(std::move(idle));
  if (in_flight_ == 0) return tell_idle();
  channel_->hurry();
}

void BlkQueue::tell_idle() {
  // Posted, because we may be inside a completion of the channel that is to be closed.
  for (auto& waiter : std::exchange(idle_waiters_, {})) home_.loop().post(std::move(waiter));
}

Served BlkQueue::serve(QueueRunner& runner) {
  home_.assert_here();
  if (pauses_ > 0) {
    blocked_ = &runner;
    return Served::kBlocked;
  }
  if (channel_ == nullptr) return Served::kBroken;
  // Read far more often than written: the line is everybody's.
  if (shared_.tell_active.load(std::memory_order_relaxed) &&
      shared_.tell_active.exchange(false, std::memory_order_relaxed) && shared_.active)
    shared_.active();
  const bool timed = shared_.timed && timing_.wants_next();
  const int64_t popping_ns = timed ? home_.loop().now_ns() : 0;
  const Served served = pop_batch(runner);
  if (batch_.empty()) return served;
  if (!timed) {
    submit_batch(0, 0);
    return served;
  }
  const int64_t submitting_ns = home_.loop().now_ns();
  const uint32_t weight = timing_.begin(submitting_ns, batch_.size());
  submit_batch(submitting_ns, weight);
  const int64_t submitted_ns = home_.loop().now_ns();
  runner.metrics().record(QueueStage::kPopToSubmit, submitting_ns - popping_ns, weight);
  runner.metrics().record(QueueStage::kSubmitToDevice, submitted_ns - submitting_ns, weight);
  return served;
}

Served BlkQueue::pop_batch(QueueRunner& runner) {
  // Bounded: a guest that keeps feeding us must not starve this thread's other queues.
  for (uint16_t budget = runner.queue().size(); budget > 0; --budget) {
    Slot& slot = take_slot();
    if (runner.queue().pop(slot.chain) != VirtQueue::Pop::kChain) {
      slot.next_free = std::exchange(free_, &slot);
      return Served::kAll;  // Or broken, which the runner sees for itself.
    }
    slot.runner = &runner;
    if (!start_request(slot)) return Served::kBroken;
  }
  return Served::kMore;
}

void BlkQueue::submit_batch(int64_t now_ns, uint32_t weight) {
  for (block::BlockRequest* io : batch_) {
    auto& slot = *static_cast<Slot*>(io->owner);
    slot.started_ns = now_ns;
    slot.weight = weight;
  }
  in_flight_ += static_cast<uint32_t>(batch_.size());
  channel_->submit(batch_);
  batch_.clear();
  metrics_.batches.add(1);
}

BlkQueue::Slot& BlkQueue::take_slot() {
  // There is one more slot than heads, and pop() sees to it that the heads in flight are distinct.
  SKIFF_CHECK(free_ != nullptr);
  return *std::exchange(free_, free_->next_free);
}

bool BlkQueue::start_request(Slot& slot) {
  const BlkCommand command =
      parse_blk_command(slot.chain.readable(), slot.chain.writable(), rules_, slot.scratch);
  slot.status = command.status;
  slot.data_bytes = 0;
  count(command);
  switch (command.kind) {
    case BlkCommand::Kind::kIo:
      start_io(slot, command);
      return true;
    case BlkCommand::Kind::kGetId:
      send_serial(slot, command);
      return true;
    case BlkCommand::Kind::kFail:
      finish(slot, command.failure);
      return true;
    case BlkCommand::Kind::kMalformed:
      break;
  }
  release(slot, 0);
  return false;
}

void BlkQueue::start_io(Slot& slot, const BlkCommand& command) {
  slot.io.op = command.op;
  slot.io.may_unmap = command.may_unmap;
  slot.io.offset_bytes = command.offset_bytes;
  slot.io.length_bytes = command.length_bytes;
  slot.io.iov = command.data;
  if (command.op == block::BlockOp::kRead) slot.data_bytes = command.length_bytes;
  // Without a volatile cache as far as the driver knows, a write is durable when it is answered
  // (5.2.6.2).
  const bool writes =
      command.op == block::BlockOp::kWrite || command.op == block::BlockOp::kWriteZeroes;
  slot.io.fua = writes && !(can_flush_ && shared_.write_back.load(std::memory_order_relaxed));
  batch_.push_back(&slot.io);
}

void BlkQueue::on_io_done(block::BlockRequest& io, int32_t result) {
  Slot& slot = *static_cast<Slot*>(io.owner);
  BlkQueue& self = *slot.queue;
  self.home_.assert_here();
  self.metrics_.completions[static_cast<size_t>(self.mode_)].add(1);
  if (slot.weight != 0) {
    const int64_t now_ns = self.home_.loop().now_ns();
    const auto kind = static_cast<size_t>(blk_op_kind(io.op));
    self.metrics_.latency[kind].record(now_ns - slot.started_ns, slot.weight);
    slot.runner->note_reaped(slot.started_ns, now_ns, slot.weight);
  }
  if (result != 0)
    self.fail(slot, result);
  else
    self.finish(slot, BlkStatus::kOk);
  if (--self.in_flight_ == 0 && !self.idle_waiters_.empty()) self.tell_idle();
}

void BlkQueue::fail(Slot& slot, int32_t result) {
  const bool is_read = slot.io.op == block::BlockOp::kRead;
  const block::ErrorPolicy policy = is_read ? shared_.errors.read : shared_.errors.write;
  switch (block::action_for(policy, result)) {
    case block::ErrorAction::kReport:
      break;
    case block::ErrorAction::kIgnore:
      metrics_.ignored_errors.add(1);
      return finish(slot, BlkStatus::kOk);
    case block::ErrorAction::kStop:
      if (stopping_) break;  // Nobody will resume a queue that goes down.
      return park(slot, result);
  }
  finish(slot, blk_status(result));
}

void BlkQueue::park(Slot& slot, int32_t result) {
  slot.next_free = nullptr;
  if (parked_first_ == nullptr)
    parked_first_ = &slot;
  else
    parked_last_->next_free = &slot;
  parked_last_ = &slot;
  metrics_.parked.add(1);
  // One story is enough, however many requests of however many queues share it.
  if (shared_.stop_told.exchange(true, std::memory_order_relaxed) || !shared_.stopped) return;
  shared_.stopped({.op = slot.io.op,
                   .offset_bytes = slot.io.offset_bytes,
                   .length_bytes = slot.io.length_bytes,
                   .os_error = -result});
}

BlkQueue::Slot* BlkQueue::take_parked() {
  parked_last_ = nullptr;
  shared_.stop_told.store(false, std::memory_order_relaxed);
  return std::exchange(parked_first_, nullptr);
}

void BlkQueue::retry() {
  home_.assert_here();
  retry_asked_ = pauses_ > 0;
  if (retry_asked_ || channel_ == nullptr) return;
  if (parked_first_ == nullptr) return;
  for (Slot* slot = take_parked(); slot != nullptr; slot = slot->next_free)
    batch_.push_back(&slot->io);
  submit_batch(0, 0);  // They have waited for somebody: no time of the disk's.
}

// 5.2.6: a string of up to 20 bytes, zero-terminated only when shorter.
void BlkQueue::send_serial(Slot& slot, const BlkCommand& command) {
  slot.data_bytes = block::copy_to_iovec(command.data, 0, shared_.serial);
  finish(slot, BlkStatus::kOk);
}

void BlkQueue::count(const BlkCommand& command) {
  if (command.kind != BlkCommand::Kind::kIo) return metrics_.others.add(1);
  switch (command.op) {
    case block::BlockOp::kRead:
      metrics_.reads.add(1);
      return metrics_.read_bytes.add(command.length_bytes);
    case block::BlockOp::kWrite:
      metrics_.writes.add(1);
      return metrics_.written_bytes.add(command.length_bytes);
    case block::BlockOp::kFlush:
      return metrics_.flushes.add(1);
    case block::BlockOp::kDiscard:
    case block::BlockOp::kWriteZeroes:
    case block::BlockOp::kStatus:
      return metrics_.others.add(1);
  }
}

void BlkQueue::finish(Slot& slot, BlkStatus status) {
  *slot.status = static_cast<std::byte>(status);
  const bool ok = status == BlkStatus::kOk;
  if (!ok) metrics_.errors.add(1);
  // What a failed read left in the buffers is not promised to the driver.
  release(slot, static_cast<uint32_t>(ok ? slot.data_bytes + 1 : 1));
}

void BlkQueue::release(Slot& slot, uint32_t written_bytes) {
  slot.next_free = std::exchange(free_, &slot);
  slot.runner->complete(slot.chain.head(), written_bytes);
}

}  // namespace skiff::devices
