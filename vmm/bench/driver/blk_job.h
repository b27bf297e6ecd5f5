// SPDX-License-Identifier: GPL-2.0-or-later
// BlkJob: a load on one virtio-blk queue, and how long each of its requests took.
//
// Closed: `depth` requests are always under way. Open: requests start at a fixed rate, whatever the
// device does; one that found no free slot counts from when it was due, so that a device that
// stalls is charged for all who had to wait ("coordinated omission").
// Freestanding: it neither waits nor kicks by itself. Thread: one at a time. Ownership: borrows the
// shared memory.
//
//   do { job.look(); if (job.turn(tick_now()).kick) kick(); } while (!job.has_ended());
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm/bench/driver/blk_table.h"
#include "vmm/bench/driver/disk_pattern.h"
#include "vmm/bench/driver/driver_histogram.h"
#include "vmm/bench/driver/driver_memory.h"
#include "vmm/bench/driver/driver_ring.h"
#include "vmm/bench/driver/tick_scale.h"
#include "vmm/bench/rate_pacer.h"

namespace skiff::vmm {

inline constexpr uint64_t kNeverTick = ~uint64_t{0};

class BlkJob {
 public:
  struct Options {
    BlkTable::Options table;
    bool random = true;
    uint32_t write_percent = 0;
    bool verify = false;       // Reads find, and writes leave, the pattern of disk_pattern.h.
    uint64_t block_count = 1;  // From the disk's beginning, in blocks of table.block_bytes.
    uint64_t first_block = 0;  // Where a job in sequence begins.
    uint64_t rate = 0;         // Requests a second. 0: closed.
    uint64_t seed = 1;         // Not 0.
    TickScale scale{1'000'000};
  };
  // In ticks. What starts before `measure_from` warms up and does not count.
  struct Span {
    uint64_t begin = 0;
    uint64_t measure_from = 0;
    uint64_t until = 0;
  };
  struct Turn {
    uint32_t taken = 0;
    uint32_t sent = 0;
    bool kick = false;
  };
  enum class Failure : uint8_t { kNone, kStatus, kLength, kData, kHead };
  struct Record {
    DriverHistogram latency;
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t kicks = 0;                // The warm-up included, like the next two.
    uint64_t batches = 0;              // Turns that sent something.
    uint64_t requests = 0;             // Finished.
    uint64_t end_tick = 0;             // When the last request ended.
    Failure failure = Failure::kNone;  // The first ended the job.
    uint64_t failed_sector = 0;
  };

  BlkJob() = default;
  bool place(DriverMemory& memory, const Options& options) {
    options_ = options;
    state_ = options.seed;
    sequential_ = options.first_block;
    const uint32_t depth = options.table.depth;
    if (!table_.place(memory, options.table)) return false;
    for (uint32_t slot = 0; slot < depth; ++slot)
      free_[slot] = static_cast<uint16_t>(depth - 1 - slot);
    free_count_ = depth;
    return true;
  }
  void start(const Span& span) {
    span_ = span;
    pacer_ = RatePacer(options_.rate == 0 ? 1 : options_.rate, options_.scale.ticks_per_second(),
                       static_cast<int64_t>(span.begin));
    running_ = true;
  }

  const DriverRing::Places& places() const { return table_.ring().places(); }
  const Record& record() const { return record_; }
  uint32_t in_flight() const { return options_.table.depth - free_count_; }
  bool has_ended() const { return !running_ && (in_flight() == 0 || is_lost()); }
  // How far behind its rate it was at the end of its time; in ticks.
  uint64_t behind_ticks() const {
    const uint64_t due = static_cast<uint64_t>(pacer_.next_ns());
    return options_.rate != 0 && due < span_.until ? span_.until - due : 0;
  }

  // True when requests have ended. What ends later than this is not taken by the next turn().
  bool look() { return table_.ring().look(); }
  // `now`: read after look().
  Turn turn(uint64_t now) {
    Turn turn;
    DriverRing::Used used;
    while (!is_lost() && table_.ring().take(used)) {
      take(used, now);
      ++turn.taken;
    }
    if (now >= span_.until) running_ = false;
    while (running_ && free_count_ != 0) {
      const auto due = static_cast<uint64_t>(pacer_.next_ns());
      if (options_.rate != 0 && due > now) break;
      send(options_.rate != 0 ? due : now);
      if (options_.rate != 0) pacer_.take();
      ++turn.sent;
    }
    if (turn.sent == 0) return turn;
    turn.kick = table_.ring().publish();
    ++record_.batches;
    record_.kicks += turn.kick ? 1 : 0;
    return turn;
  }
  // When it has something to do by itself: kNeverTick while it only waits for the device.
  uint64_t next_tick() const {
    if (!running_) return kNeverTick;
    if (free_count_ == 0 || options_.rate == 0) return kNeverTick;
    const auto due = static_cast<uint64_t>(pacer_.next_ns());
    return due < span_.until ? due : span_.until;
  }
  bool enable_interrupts() { return table_.ring().enable_interrupts(); }

 private:
  bool is_lost() const { return record_.failure == Failure::kHead; }

  uint64_t random() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  uint64_t next_block() {
    if (options_.random) return scaled(random(), options_.block_count);
    const uint64_t block = sequential_;
    sequential_ = sequential_ + 1 == options_.block_count ? 0 : sequential_ + 1;
    return block;
  }
  // `value` of 2^64 as a part of `count`.
  static uint64_t scaled(uint64_t value, uint64_t count) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>(Wide{value} * count >> 64);
  }

  void send(uint64_t start_tick) {
    const uint32_t slot = free_[--free_count_];
    Slot& sent = slots_[slot];
    const uint64_t offset_bytes = next_block() * options_.table.block_bytes;
    const bool writes =
        options_.write_percent != 0 &&
        (options_.write_percent >= 100 || scaled(random(), 100) < options_.write_percent);
    sent.start_tick = start_tick;
    sent.sector = offset_bytes / kBlkSectorBytes;
    sent.direction = writes ? BlkDirection::kWrite : BlkDirection::kRead;
    sent.in_flight = true;
    if (writes && options_.verify)
      fill_pattern(table_.data(slot), options_.table.block_bytes, offset_bytes);
    table_.put(slot, sent.direction, sent.sector);
  }

  void take(const DriverRing::Used& used, uint64_t now) {
    const uint32_t slot = table_.slot_of(used.head);
    // Its buffers may be anybody's now: nothing of this queue can be believed any more.
    if (slot == BlkTable::kDepthMax || !slots_[slot].in_flight) return fail(Failure::kHead, 0);
    Slot& taken = slots_[slot];
    taken.in_flight = false;
    free_[free_count_++] = static_cast<uint16_t>(slot);
    ++record_.requests;
    record_.end_tick = now;
    const bool reads = taken.direction == BlkDirection::kRead;
    const uint32_t written = 1 + (reads ? options_.table.block_bytes : 0);
    if (table_.status(slot) != 0) return fail(Failure::kStatus, taken.sector);
    // A device may count only the status byte, or what lies before it too (5.2.6.4 leaves no doubt,
    // but devices do); less than the data of a read is wrong for all of them.
    if (reads && used.written_bytes + 1 < written) return fail(Failure::kLength, taken.sector);
    if (reads && options_.verify &&
        !is_pattern(table_.data(slot), options_.table.block_bytes, taken.sector * kBlkSectorBytes))
      return fail(Failure::kData, taken.sector);
    if (taken.start_tick < span_.measure_from) return;
    record_.latency.record(options_.scale.to_ns(now - taken.start_tick));
    ++(reads ? record_.reads : record_.writes);
  }

  void fail(Failure failure, uint64_t sector) {
    running_ = false;
    if (record_.failure != Failure::kNone) return;
    record_.failure = failure;
    record_.failed_sector = sector;
  }

  struct Slot {
    uint64_t start_tick = 0;
    uint64_t sector = 0;
    BlkDirection direction = BlkDirection::kRead;
    bool in_flight = false;
  };

  Options options_;
  Span span_;
  BlkTable table_;
  RatePacer pacer_{1, 1, 0};
  Record record_;
  Slot slots_[BlkTable::kDepthMax] = {};
  uint16_t free_[BlkTable::kDepthMax] = {};
  uint32_t free_count_ = 0;
  uint64_t state_ = 1;
  uint64_t sequential_ = 0;
  bool running_ = false;
};

constexpr const char* failure_text(BlkJob::Failure failure) {
  switch (failure) {
    case BlkJob::Failure::kNone:
      break;
    case BlkJob::Failure::kStatus:
      return "a request failed";
    case BlkJob::Failure::kLength:
      return "a read returned too little";
    case BlkJob::Failure::kData:
      return "a read returned other data than the disk's pattern";
    case BlkJob::Failure::kHead:
      return "the device finished a request that was not its own";
  }
  return "";
}

}  // namespace skiff::vmm
