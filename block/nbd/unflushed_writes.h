// SPDX-License-Identifier: GPL-2.0-or-later
// UnflushedWrites: what a server has acknowledged and not yet been made to keep.
//
// A server that dies may lose it, and a later flush of its successor would not notice. So a copy
// stays here until a flush has covered it, to be written again after a reconnect (the same idea as
// NFS's unstable writes and COMMIT). Thread: add(), mark() and the flags on any; the rest on the
// home loop. Ownership: owns the copies.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "block/block_channel.h"
#include "loop/mutex.h"

namespace skiff::block {

class UnflushedWrites {
 public:
  struct Write {
    uint64_t sequence = 0;
    BlockOp op = BlockOp::kWrite;  // Or kDiscard, kWriteZeroes.
    bool may_unmap = false;
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    std::unique_ptr<std::byte[]> bytes;  // Of a kWrite.
  };
  struct Limits {
    uint64_t wish_flush_bytes = uint64_t{16} << 20;
    uint64_t full_bytes = uint64_t{64} << 20;
  };

  UnflushedWrites() : UnflushedWrites(Limits{}) {}
  explicit UnflushedWrites(const Limits& limits) : limits_(limits) {}
  UnflushedWrites(const UnflushedWrites&) = delete;
  UnflushedWrites& operator=(const UnflushedWrites&) = delete;

  // Before open has ended: is there a flush that would ever empty this?
  void set_enabled(bool enabled) { enabled_ = enabled; }

  // Remembers a request that changes the image and has just been acknowledged; its buffers are
  // copied. True when it is time to flush, until flushed() or give_up().
  bool add(const BlockRequest& request);
  // Nothing more should be added before a flush.
  bool full() const { return held_bytes_.load(std::memory_order_relaxed) >= limits_.full_bytes; }

  // A flush that is sent after this covers what was added before.
  uint64_t mark() const;
  void flushed(uint64_t mark);
  // The server could not keep something: it cannot be helped any more, and every flush must say so.
  void give_up();
  bool writes_lost() const { return writes_lost_.load(std::memory_order_relaxed); }

  // For taking them up again, in the order in which they were acknowledged; nobody adds meanwhile.
  size_t count() const;
  const Write& at(size_t index) const;

 private:
  const Limits limits_;
  bool enabled_ = true;
  std::atomic<bool> writes_lost_{false};
  std::atomic<uint64_t> held_bytes_{0};
  mutable loop::Mutex mutex_;
  std::deque<Write> writes_ SKIFF_GUARDED_BY(mutex_);
  uint64_t sequence_ SKIFF_GUARDED_BY(mutex_) = 0;
};

}  // namespace skiff::block
