// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/virt_queue.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/virtio/inflight_log.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"
#include "loop/check.h"
#include "loop/result.h"

namespace skiff::devices {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

namespace {

// `next` of an indirect descriptor has 16 bits: nothing beyond this can be reached.
constexpr uint64_t kIndirectEntriesMax = 65536;
// 2.7.5.3.1 (and 2.7.4): a chain is at most 2^32 bytes long in total.
constexpr uint64_t kChainBytesMax = uint64_t{1} << 32;

Result<std::byte*> resolve(const GuestMemory& memory, std::string_view part, GuestAddress address,
                           std::pair<uint64_t, uint64_t> size_and_alignment) {
  const auto [size_bytes, alignment] = size_and_alignment;
  if (address.value % alignment != 0)
    return Error(ErrorKind::kCorrupt, fmt::format("{} at {:#x} is not aligned to {} bytes", part,
                                                  address.value, alignment));
  const auto bytes = memory.translate(address, size_bytes);
  if (!bytes)
    return Error(ErrorKind::kCorrupt, fmt::format("{} at {:#x}, {} bytes long, is not in RAM", part,
                                                  address.value, size_bytes));
  // Region bases and their mappings are page-aligned: what the guest aligned is aligned here.
  SKIFF_CHECK(reinterpret_cast<uintptr_t>(bytes->data()) % alignment == 0);
  return bytes->data();
}

}  // namespace

// Where a chain is being read from: the queue's own table, or the one indirect table it ends in.
struct VirtQueue::Walk {
  std::byte* table;
  uint64_t entries;
  uint32_t index;
  bool in_indirect = false;
};

Result<void> VirtQueue::configure(const QueueLayout& layout, uint64_t features) {
  release();
  if (!std::has_single_bit(layout.size) || layout.size > kVirtQueueSizeMax)
    return Error(ErrorKind::kCorrupt, fmt::format("Queue size {} is not a power of two up to {}",
                                                  layout.size, kVirtQueueSizeMax));
  // Sizes and alignments: 2.7, table "Virtqueue Part".
  auto descriptors = resolve(memory_, "Descriptor table", layout.descriptors,
                             {layout.size * kVirtDescriptorBytes, 16});
  if (!descriptors) return descriptors.error();
  auto avail =
      resolve(memory_, "Available ring", layout.available, {avail_ring_bytes(layout.size), 2});
  if (!avail) return avail.error();
  auto used = resolve(memory_, "Used ring", layout.used, {used_ring_bytes(layout.size), 4});
  if (!used) return used.error();

  descriptors_ = *descriptors;
  avail_ = *avail;
  used_ = *used;
  size_ = layout.size;
  indirect_ = (features & kVirtioRingIndirectDesc) != 0;
  event_idx_ = (features & kVirtioRingEventIdx) != 0;
  in_flight_heads_.assign((size_ + 63u) / 64u, 0);
  if (layout.resume) resume(*layout.resume);
  return {};
}

void VirtQueue::resume(const QueueResume& from) {
  next_used_ = published_used_ = ring_load<uint16_t>(used_ + kRingIndexOffset);
  next_avail_ = from.next_available;
  inflight_ = from.inflight;
  if (inflight_ != nullptr) {
    open_heads_ = inflight_->recover(next_used_);
    // All that was ever taken is either in the used ring or open.
    next_avail_ = static_cast<uint16_t>(next_used_ + open_heads_.size());
    std::ranges::reverse(open_heads_);
  }
  seen_avail_ = next_avail_;
}

void VirtQueue::release() {
  descriptors_ = avail_ = used_ = nullptr;
  size_ = next_avail_ = seen_avail_ = next_used_ = published_used_ = in_flight_ = 0;
  indirect_ = event_idx_ = false;
  in_flight_heads_.clear();
  inflight_ = nullptr;
  open_heads_.clear();
  broken_reason_ = {};
}

VirtQueue::Pop VirtQueue::break_queue(std::string_view reason) {
  if (!is_broken()) broken_reason_ = reason;
  return Pop::kBroken;
}

VirtQueue::Pop VirtQueue::pop(DescriptorChain& into) {
  if (!is_configured()) return Pop::kEmpty;
  if (is_broken()) return Pop::kBroken;
  if (inflight_ != nullptr && !open_heads_.empty()) return pop_again(into);
  if (next_avail_ == seen_avail_) {
    // Acquire: the entries and descriptors that this index covers are read after it.
    const auto index = ring_load<uint16_t>(avail_ + kRingIndexOffset, std::memory_order_acquire);
    if (static_cast<uint16_t>(index - next_avail_) > size_)
      return break_queue("the available index jumped by more than the queue's size");
    if (index == next_avail_) return Pop::kEmpty;
    seen_avail_ = index;
  }

  const uint32_t slot = next_avail_ & (size_ - 1u);
  const auto head = ring_load<uint16_t>(avail_ + avail_entry_offset(slot));
  if (head >= size_) return break_queue("a head index is not within the queue");
  if (!read_chain(head, into)) return Pop::kBroken;
  if (!test_and_set_in_flight(head)) return break_queue("a head was offered while it is in flight");
  if (inflight_ != nullptr) inflight_->taken(head);
  ++next_avail_;
  return Pop::kChain;
}

// What whoever served the queue before us took and did not answer. The log marks it already.
VirtQueue::Pop VirtQueue::pop_again(DescriptorChain& into) {
  const uint16_t head = open_heads_.back();
  open_heads_.pop_back();
  // The log's size may be larger than the queue's.
  if (head >= size_)
    return break_queue("the inflight log names a head that is not within the queue");
  if (!read_chain(head, into)) return Pop::kBroken;
  if (!test_and_set_in_flight(head)) return break_queue("the inflight log names a head twice");
  return Pop::kChain;
}

bool VirtQueue::has_available() const {
  if (!is_configured() || is_broken()) return false;
  return ring_load<uint16_t>(avail_ + kRingIndexOffset) != next_avail_;
}

bool VirtQueue::test_and_set_in_flight(uint16_t head) {
  uint64_t& word = in_flight_heads_[head / 64u];
  const uint64_t bit = uint64_t{1} << (head % 64u);
  if ((word & bit) != 0) return false;
  word |= bit;
  ++in_flight_;
  return true;
}

bool VirtQueue::read_chain(uint16_t head, DescriptorChain& into) {
  into.head_ = head;
  into.readable_bytes_ = into.writable_bytes_ = 0;
  into.has_writable_ = false;
  into.readable_.clear();
  into.writable_.clear();

  Walk walk{.table = descriptors_, .entries = size_, .index = head};
  // A chain longer than the queue either loops or breaks 2.7.5.3.1; this bounds both.
  for (uint16_t buffers = 0; buffers < size_;) {
    if (walk.index >= walk.entries) {
      break_queue("a descriptor's next is not within its table");
      return false;
    }
    const VirtDescriptor descriptor = load_descriptor(walk.table, walk.index);
    if ((descriptor.flags & VirtDescriptor::kIndirect) != 0) {
      if (!enter_indirect(descriptor, walk)) return false;
      continue;  // At most once per chain: not counted, the table's entries are.
    }
    if (!add_buffer(descriptor, into)) return false;
    if ((descriptor.flags & VirtDescriptor::kNext) == 0) return true;
    walk.index = descriptor.next;
    ++buffers;
  }
  break_queue("a descriptor chain loops or is longer than the queue");
  return false;
}

// 2.7.5.3: the write flag of the descriptor that refers to the table is ignored.
bool VirtQueue::enter_indirect(const VirtDescriptor& descriptor, Walk& walk) {
  std::string_view reason;
  if (!indirect_) {
    reason = "an indirect descriptor was used but not negotiated";
  } else if (walk.in_indirect) {
    reason = "an indirect table holds an indirect descriptor";
  } else if ((descriptor.flags & VirtDescriptor::kNext) != 0) {
    reason = "an indirect descriptor has a next one";
  } else if (descriptor.length_bytes == 0 || descriptor.length_bytes % kVirtDescriptorBytes != 0 ||
             descriptor.length_bytes / kVirtDescriptorBytes > kIndirectEntriesMax) {
    reason = "an indirect table's size is not a multiple of 16 up to 1 MiB";
  } else if (descriptor.address % alignof(uint64_t) != 0) {
    // The specification does not demand it, but every driver's allocator gives it, and without it
    // entries could not be read atomically.
    reason = "an indirect table is not aligned to 8 bytes";
  } else if (auto table =
                 memory_.translate(GuestAddress{descriptor.address}, descriptor.length_bytes)) {
    walk = {.table = table->data(),
            .entries = descriptor.length_bytes / kVirtDescriptorBytes,
            .index = 0,
            .in_indirect = true};
    return true;
  } else {
    reason = "an indirect table is not in RAM";
  }
  break_queue(reason);
  return false;
}

bool VirtQueue::add_buffer(const VirtDescriptor& descriptor, DescriptorChain& into) {
  const bool writable = (descriptor.flags & VirtDescriptor::kWrite) != 0;
  // 2.7.4.2: what the device reads comes before what it writes. A buffer of length zero counts.
  if (!writable && into.has_writable_) {
    break_queue("a readable buffer follows a writable one");
    return false;
  }
  into.has_writable_ = writable;
  uint64_t& bytes = writable ? into.writable_bytes_ : into.readable_bytes_;
  bytes += descriptor.length_bytes;
  if (into.readable_bytes_ + into.writable_bytes_ > kChainBytesMax) {
    break_queue("a descriptor chain is longer than 2^32 bytes");
    return false;
  }
  if (!append_host_buffers(descriptor, writable ? into.writable_ : into.readable_)) {
    break_queue("a buffer is not in RAM");
    return false;
  }
  return true;
}

bool VirtQueue::append_host_buffers(const VirtDescriptor& descriptor,
                                    std::vector<iovec>& into) const {
  uint64_t address = descriptor.address;
  uint64_t left = descriptor.length_bytes;
  // Regions are sorted, so one pass finds all parts of a buffer that crosses boundaries.
  for (const GuestRegion& region : memory_.regions()) {
    if (left == 0) break;
    if (address < region.base.value) return false;
    const uint64_t offset = address - region.base.value;
    if (offset >= region.size_bytes) continue;
    const uint64_t part = std::min(left, region.size_bytes - offset);
    into.push_back({.iov_base = region.host + offset, .iov_len = part});
    address += part;
    left -= part;
  }
  return left == 0;
}

void VirtQueue::clear_in_flight(uint16_t head) {
  SKIFF_CHECK(head < size_);
  uint64_t& word = in_flight_heads_[head / 64u];
  const uint64_t bit = uint64_t{1} << (head % 64u);
  SKIFF_CHECK((word & bit) != 0);
  word &= ~bit;
  --in_flight_;
}

void VirtQueue::undo_pop(uint16_t head) {
  clear_in_flight(head);
  if (inflight_ == nullptr) {
    --next_avail_;
  } else {
    open_heads_.push_back(head);  // The log has it open, which is true.
  }
}

void VirtQueue::push_used(uint16_t head, uint32_t written_bytes) {
  clear_in_flight(head);
  if (is_broken()) {
    // The driver never hears of it, and nobody shall carry it out again.
    if (inflight_ != nullptr) inflight_->given_back(head);
    return;
  }
  std::byte* entry = used_ + used_entry_offset(next_used_ & (size_ - 1u));
  ring_store<uint32_t>(entry, head);
  ring_store<uint32_t>(entry + 4, written_bytes);
  ++next_used_;
  if (inflight_ != nullptr) inflight_->finished(head);
}

bool VirtQueue::publish_used() {
  if (next_used_ == published_used_ || is_broken()) return false;
  const uint16_t before = published_used_;
  published_used_ = next_used_;
  // Release: the driver that sees the index sees the entries and the data.
  ring_store<uint16_t>(used_ + kRingIndexOffset, next_used_, std::memory_order_release);
  if (inflight_ != nullptr) inflight_->published(next_used_);
  // The index must be visible before we look whether the driver sleeps; it writes used_event and
  // then reads the index (2.7.7). Neither release nor x86 orders a store before a later load.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (event_idx_) {
    const auto event = ring_load<uint16_t>(avail_ + used_event_offset(size_));
    return event_was_passed(event, next_used_, before);
  }
  return (ring_load<uint16_t>(avail_ + kRingFlagsOffset) & kAvailNoInterrupt) == 0;
}

void VirtQueue::disable_notifications() {
  if (!is_configured() || is_broken()) return;
  // With EVENT_IDX the flags stay 0 (2.7.10.1); an avail_event left behind does not ask for kicks.
  if (!event_idx_) ring_store<uint16_t>(used_ + kRingFlagsOffset, kUsedNoNotify);
}

void VirtQueue::suppress_notifications() {
  if (!is_configured() || is_broken()) return;
  // With EVENT_IDX the driver is waiting to pass next_avail_; what is behind it cannot be passed
  // (but by 2^16 entries at once, which is more than there are).
  if (event_idx_)
    ring_store<uint16_t>(used_ + avail_event_offset(size_), static_cast<uint16_t>(next_avail_ - 1));
  else
    ring_store<uint16_t>(used_ + kRingFlagsOffset, kUsedNoNotify);
}

VirtQueue::Rearm VirtQueue::enable_notifications() {
  if (!is_configured() || is_broken()) return Rearm::kIdle;
  if (event_idx_) {
    ring_store<uint16_t>(used_ + avail_event_offset(size_), next_avail_);
  } else {
    ring_store<uint16_t>(used_ + kRingFlagsOffset, uint16_t{0});
  }
  // The driver writes its index and then reads avail_event or the flags; we do it crosswise, and
  // with this fence on both sides at least one sees the other (2.7.10.1).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const auto index = ring_load<uint16_t>(avail_ + kRingIndexOffset);
  return index == next_avail_ && open_heads_.empty() ? Rearm::kIdle : Rearm::kMoreAvailable;
}

}  // namespace skiff::devices
