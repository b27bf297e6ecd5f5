// SPDX-License-Identifier: GPL-2.0-or-later
// RawImage: an image whose bytes are the disk's, one to one.
//
// Thread: as BlockBackend. Ownership: owns the device, borrows the pool; outlives its channels.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "block/block_channel.h"
#include "block/filters/fault_plan.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/range_lock.h"
#include "block/request_fixup.h"

namespace skiff::block {

class RawImage final : public BlockBackend {
 public:
  // `faults`, if any, outlive the image.
  RawImage(std::unique_ptr<IoDevice> device, IoEngineKind engine, loop::WorkerPool& pool,
           FaultPlan* faults = nullptr)
      : device_(std::move(device)), engine_(engine), pool_(pool), faults_(faults) {}

  uint64_t size_bytes() const override { return device_->size_bytes(); }
  bool is_read_only() const override { return device_->is_read_only(); }
  const BlockLimits& limits() const override { return device_->limits(); }
  const std::string& name() const override { return device_->name(); }
  loop::Result<std::unique_ptr<BlockChannel>> open_channel(loop::EventLoop& loop) override;
  loop::Result<void> resize(std::optional<uint64_t> size_bytes) override {
    return device_->resize(size_bytes);
  }

  // For the channels. Thread: any.
  const IoTarget& target() const { return device_->target(); }
  loop::WorkerPool& pool() const { return pool_; }
  RangeLocks& write_locks() { return write_locks_; }
  // Linux reports a failed write-back once per descriptor; a later fsync that succeeds would lie.
  void note_writes_lost() { writes_lost_.store(true, std::memory_order_relaxed); }
  bool writes_lost() const { return writes_lost_.load(std::memory_order_relaxed); }
  // Until the kernel said for the first time that it cannot (of a part of a file system it may say
  // so later than at open).
  bool can_discard() const {
    return limits().discard && !cannot_discard_.load(std::memory_order_relaxed);
  }
  bool can_write_zeroes() const {
    return limits().write_zeroes && !cannot_write_zeroes_.load(std::memory_order_relaxed);
  }
  void note_cannot(IoOp op);

 private:
  std::unique_ptr<IoDevice> device_;
  IoEngineKind engine_;
  loop::WorkerPool& pool_;
  FaultPlan* const faults_;
  RangeLocks write_locks_;
  std::atomic<bool> writes_lost_{false};
  std::atomic<bool> cannot_discard_{false};
  std::atomic<bool> cannot_write_zeroes_{false};
};

}  // namespace skiff::block
