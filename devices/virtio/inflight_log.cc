// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/inflight_log.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "devices/virtio/virt_ring.h"
#include "loop/check.h"
#include "loop/result.h"

namespace skiff::devices {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// The layout of a split queue's region, as every back end writes it.
constexpr uint64_t kVersionOffset = 8;
constexpr uint64_t kQueueSizeOffset = 10;
constexpr uint64_t kLastBatchHeadOffset = 12;
constexpr uint64_t kUsedIndexOffset = 14;
constexpr uint64_t kHeaderBytes = 16;
// Of one head.
constexpr uint64_t kEntryBytes = 16;
constexpr uint64_t kInflightOffset = 0;
constexpr uint64_t kNextOffset = 6;
constexpr uint64_t kCounterOffset = 8;

constexpr uint16_t kVersion = 1;
constexpr uint64_t kAlignment = 64;

// Stores in program order, as far as the compiler is concerned; the processors this runs on keep
// the order of a thread's stores for whoever maps the memory after its death.
constexpr auto kInOrder = std::memory_order_release;

}  // namespace

uint64_t InflightLog::bytes_for(uint16_t queue_size) {
  const uint64_t bytes = kHeaderBytes + kEntryBytes * queue_size;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

InflightLog::InflightLog(std::byte* header, uint16_t queue_size)
    : header_(header), queue_size_(queue_size) {
  batch_.reserve(queue_size);
}

Result<InflightLog> InflightLog::open(std::span<std::byte> region, uint16_t queue_size) {
  if (region.size() < kHeaderBytes + kEntryBytes * queue_size ||
      reinterpret_cast<uintptr_t>(region.data()) % alignof(uint64_t) != 0)
    return Error(ErrorKind::kCorrupt,
                 fmt::format("{} bytes are no room for the inflight log of a queue of {}",
                             region.size(), queue_size));
  std::byte* header = region.data();
  const auto version = ring_load<uint16_t>(header + kVersionOffset);
  if (version == 0) {
    ring_store<uint16_t>(header + kQueueSizeOffset, queue_size);
    // Last: a region without a version is one that nobody has begun to use.
    ring_store<uint16_t>(header + kVersionOffset, kVersion, kInOrder);
    return InflightLog(header, queue_size);
  }
  const auto size = ring_load<uint16_t>(header + kQueueSizeOffset);
  if (version != kVersion || size < queue_size)
    return Error(ErrorKind::kCorrupt,
                 fmt::format("The inflight log is of version {} for a queue of {}, not of version "
                             "{} for one of {}",
                             version, size, kVersion, queue_size));
  return InflightLog(header, queue_size);
}

std::byte* InflightLog::entry(uint16_t head) const {
  SKIFF_CHECK(head < queue_size_);
  return header_ + kHeaderBytes + kEntryBytes * head;
}

std::vector<uint16_t> InflightLog::recover(uint16_t used_index) {
  batch_.clear();
  // What was shown to the driver in the last batch may still be marked: shown is done.
  const auto logged = ring_load<uint16_t>(header_ + kUsedIndexOffset);
  auto shown = static_cast<uint16_t>(used_index - logged);
  last_finished_ = ring_load<uint16_t>(header_ + kLastBatchHeadOffset);
  for (uint16_t head = last_finished_; shown > 0 && shown <= queue_size_ && head < queue_size_;
       --shown) {
    std::byte* at = entry(head);
    ring_store<uint8_t>(at + kInflightOffset, 0);
    head = ring_load<uint16_t>(at + kNextOffset);
  }
  ring_store<uint16_t>(header_ + kUsedIndexOffset, used_index, kInOrder);

  std::vector<std::pair<uint64_t, uint16_t>> open;
  counter_ = 0;
  for (uint16_t head = 0; head < queue_size_; ++head) {
    if (ring_load<uint8_t>(entry(head) + kInflightOffset) == 0) continue;
    const auto counter = ring_load<uint64_t>(entry(head) + kCounterOffset);
    open.emplace_back(counter, head);
    counter_ = std::max(counter_, counter + 1);
  }
  std::ranges::sort(open);
  std::vector<uint16_t> heads;
  heads.reserve(open.size());
  for (const auto& [counter, head] : open) heads.push_back(head);
  return heads;
}

void InflightLog::taken(uint16_t head) {
  std::byte* at = entry(head);
  ring_store<uint64_t>(at + kCounterOffset, counter_++);
  ring_store<uint8_t>(at + kInflightOffset, 1, kInOrder);  // After its counter.
}

void InflightLog::given_back(uint16_t head) {
  ring_store<uint8_t>(entry(head) + kInflightOffset, 0, kInOrder);
}

void InflightLog::finished(uint16_t head) {
  // A list of the batch, so that recover() knows what the used ring's index covered. Linked before
  // it becomes the list's head.
  ring_store<uint16_t>(entry(head) + kNextOffset, last_finished_);
  ring_store<uint16_t>(header_ + kLastBatchHeadOffset, head, kInOrder);
  last_finished_ = head;
  batch_.push_back(head);
}

void InflightLog::published(uint16_t used_index) {
  for (const uint16_t head : batch_) given_back(head);
  batch_.clear();
  ring_store<uint16_t>(header_ + kUsedIndexOffset, used_index, kInOrder);  // After the marks.
}

}  // namespace skiff::devices
