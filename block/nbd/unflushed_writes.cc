// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/unflushed_writes.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "block/block_channel.h"
#include "block/iovec_copy.h"
#include "loop/check.h"
#include "loop/mutex.h"

namespace skiff::block {
namespace {

// A range without data still takes room.
constexpr uint64_t kEntryBytes = 64;

uint64_t cost_of(const UnflushedWrites::Write& write) {
  return kEntryBytes + (write.bytes ? write.length_bytes : 0);
}

}  // namespace

bool UnflushedWrites::add(const BlockRequest& request) {
  if (!enabled_ || writes_lost()) return false;
  Write write = {.op = request.op,
                 .may_unmap = request.may_unmap,
                 .offset_bytes = request.offset_bytes,
                 .length_bytes = request.length_bytes};
  if (request.op == BlockOp::kWrite) {
    write.bytes = std::make_unique_for_overwrite<std::byte[]>(request.length_bytes);
    const size_t copied =
        copy_from_iovec(request.iov, 0, {write.bytes.get(), request.length_bytes});
    SKIFF_CHECK(copied == request.length_bytes);
  }
  const uint64_t cost = cost_of(write);
  const loop::MutexLock lock(mutex_);
  write.sequence = ++sequence_;
  writes_.push_back(std::move(write));
  return held_bytes_.fetch_add(cost, std::memory_order_relaxed) + cost >= limits_.wish_flush_bytes;
}

uint64_t UnflushedWrites::mark() const {
  const loop::MutexLock lock(mutex_);
  return sequence_;
}

void UnflushedWrites::flushed(uint64_t mark) {
  std::deque<Write> done;  // Freed without the lock.
  const loop::MutexLock lock(mutex_);
  while (!writes_.empty() && writes_.front().sequence <= mark) {
    held_bytes_.fetch_sub(cost_of(writes_.front()), std::memory_order_relaxed);
    done.push_back(std::move(writes_.front()));
    writes_.pop_front();
  }
}

void UnflushedWrites::give_up() {
  writes_lost_.store(true, std::memory_order_relaxed);
  flushed(mark());
}

size_t UnflushedWrites::count() const {
  const loop::MutexLock lock(mutex_);
  return writes_.size();
}

const UnflushedWrites::Write& UnflushedWrites::at(size_t index) const {
  const loop::MutexLock lock(mutex_);
  return writes_[index];
}

}  // namespace skiff::block
