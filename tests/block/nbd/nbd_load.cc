// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/block/nbd/nbd_load.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "loop/event_loop.h"
#include "loop/mutex.h"

namespace skiff::block {
namespace {

constexpr size_t kWords = NbdLoad::kBlockBytes / sizeof(uint64_t);

uint64_t stamp(uint64_t block, uint64_t version) { return block << 32 | version; }

void fill(std::span<std::byte> bytes, uint64_t value) {
  for (size_t i = 0; i < kWords; ++i)
    std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
}

}  // namespace

NbdLoad::NbdLoad(BlockBackend& image, loop::EventLoop& loop, const Options& options)
    : image_(image), loop_(loop), options_(options) {}

NbdLoad::~NbdLoad() = default;

void NbdLoad::start() {
  loop_.post([this] {
    channel_ = *image_.open_channel(loop_);
    acknowledged_.resize(options_.blocks);
    issued_.resize(options_.blocks);
    flush_.op = BlockOp::kFlush;
    flush_.done = &NbdLoad::on_flushed;
    flush_.owner = this;
    for (uint32_t i = 0; i < options_.depth; ++i) {
      auto slot = std::make_unique<Slot>();
      slot->load = this;
      slot->lane = i;
      slot->bytes.resize(kBlockBytes);
      slot->iov = {slot->bytes.data(), kBlockBytes};
      slot->request.op = BlockOp::kWrite;
      slot->request.iov = {&slot->iov, 1};
      slot->request.length_bytes = kBlockBytes;
      slot->request.done = &NbdLoad::on_written;
      slot->request.owner = slot.get();
      slots_.push_back(std::move(slot));
      next(*slots_.back());
    }
  });
}

void NbdLoad::submit(BlockRequest& request) {
  BlockRequest* one = &request;
  channel_->submit({&one, 1});
}

// Slot i writes the blocks i, i + depth, ... in turn: never two writes of a block at once.
void NbdLoad::next(Slot& slot) {
  if (started_ == options_.writes) return end_when_idle();
  const auto index = static_cast<uint64_t>(started_++);
  const uint64_t rows = options_.blocks / options_.depth;
  slot.block = slot.lane + index / options_.depth % rows * options_.depth;
  slot.version = ++issued_[slot.block];
  fill(slot.bytes, stamp(options_.first_block + slot.block, slot.version));
  slot.request.offset_bytes = (options_.first_block + slot.block) * kBlockBytes;
  ++writing_;
  submit(slot.request);
}

void NbdLoad::on_written(BlockRequest& request, int32_t result) {
  auto& slot = *static_cast<Slot*>(request.owner);
  NbdLoad& self = *slot.load;
  --self.writing_;
  if (result == 0) self.acknowledged_[slot.block] = slot.version;
  {
    const loop::MutexLock lock(self.mutex_);
    ++self.writes_;
    if (result != 0) ++self.write_errors_;
    self.changed_.notify_all();
  }
  if (self.options_.writes_per_flush != 0 &&
      ++self.since_flush_ >= self.options_.writes_per_flush && !self.flushing_) {
    self.since_flush_ = 0;
    self.flush();
  }
  self.next(slot);
}

void NbdLoad::flush() {
  flushing_ = true;
  submit(flush_);
}

void NbdLoad::on_flushed(BlockRequest& request, int32_t result) {
  NbdLoad& self = *static_cast<NbdLoad*>(request.owner);
  self.flushing_ = false;
  if (result != 0) {
    const loop::MutexLock lock(self.mutex_);
    ++self.flush_errors_;
  }
  self.end_when_idle();
}

void NbdLoad::end_when_idle() {
  if (started_ < options_.writes || writing_ > 0 || flushing_) return;
  if (!last_flush_ && options_.writes_per_flush != 0) {
    last_flush_ = true;
    return flush();
  }
  // Not within a completion of the channel's own.
  loop_.post([this] { end(); });
}

void NbdLoad::end() {
  channel_.reset();
  const loop::MutexLock lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

void NbdLoad::wait_for_writes(uint32_t acknowledged) {
  const loop::MutexLock lock(mutex_);
  while (writes_ < acknowledged) changed_.wait(mutex_);
}

void NbdLoad::wait() {
  const loop::MutexLock lock(mutex_);
  while (!ended_) changed_.wait(mutex_);
}

uint32_t NbdLoad::write_errors() {
  const loop::MutexLock lock(mutex_);
  return write_errors_;
}

uint32_t NbdLoad::flush_errors() {
  const loop::MutexLock lock(mutex_);
  return flush_errors_;
}

uint32_t NbdLoad::wrong_blocks(std::span<const std::byte> disk) {
  uint32_t wrong = 0;
  std::vector<std::byte> expected(kBlockBytes);
  for (uint64_t block = 0; block < options_.blocks; ++block) {
    if (acknowledged_[block] == 0) continue;
    const uint64_t number = options_.first_block + block;
    fill(expected, stamp(number, acknowledged_[block]));
    if (std::memcmp(disk.data() + number * kBlockBytes, expected.data(), kBlockBytes) != 0) ++wrong;
  }
  return wrong;
}

}  // namespace skiff::block
