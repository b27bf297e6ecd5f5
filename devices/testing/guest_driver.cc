// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/testing/guest_driver.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/virtio/virt_ring.h"
#include "loop/check.h"

namespace skiff::devices {

namespace {

GuestAddress align_up(GuestAddress address, uint64_t alignment) {
  return {(address.value + alignment - 1) / alignment * alignment};
}

GuestAddress end_of_region(const GuestMemory& memory, GuestAddress address) {
  for (const GuestRegion& region : memory.regions()) {
    if (address >= region.base && address.value - region.base.value < region.size_bytes)
      return region.base + region.size_bytes;
  }
  return address;  // Not RAM: no room for anything, the first allocate() says so.
}

}  // namespace

GuestDriver::GuestDriver(const GuestMemory& memory, const Options& options)
    : memory_(memory), options_(options), arena_next_(options.base) {
  const uint16_t size = options.queue_size;
  arena_end_ = options.arena_bytes == 0 ? end_of_region(memory, options.base)
                                        : options.base + options.arena_bytes;
  layout_.size = size;
  layout_.descriptors = allocate(size * kVirtDescriptorBytes, 16);
  layout_.available = allocate(avail_ring_bytes(size), 2);
  layout_.used = allocate(used_ring_bytes(size), 4);
  indirect_tables_ = allocate(uint64_t{size} * options.indirect_entries * kVirtDescriptorBytes, 16);
  descriptors_ = host(layout_.descriptors, size * kVirtDescriptorBytes);
  avail_ = host(layout_.available, avail_ring_bytes(size));
  used_ = host(layout_.used, used_ring_bytes(size));
  std::memset(descriptors_, 0, size * kVirtDescriptorBytes);
  std::memset(avail_, 0, avail_ring_bytes(size));
  std::memset(used_, 0, used_ring_bytes(size));
  next_free_.resize(size);
  chain_lengths_.resize(size);
  for (uint16_t i = 0; i < size; ++i) next_free_[i] = static_cast<uint16_t>(i + 1);
  free_count_ = size;
}

std::byte* GuestDriver::host(GuestAddress address, uint64_t size_bytes) const {
  const auto bytes = memory_.translate(address, size_bytes);
  SKIFF_CHECK(bytes.has_value());
  return bytes->data();
}

GuestAddress GuestDriver::allocate(uint64_t size_bytes, uint64_t alignment) {
  const GuestAddress start = align_up(arena_next_, alignment);
  SKIFF_CHECK(start <= arena_end_ && size_bytes <= arena_end_.value - start.value);
  arena_next_ = start + size_bytes;
  return start;
}

DriverBuffer GuestDriver::allocate_with(std::span<const std::byte> bytes) {
  const GuestAddress address = allocate(bytes.size());
  SKIFF_CHECK(memory_.write(address, bytes));
  return DriverBuffer::readable(address, static_cast<uint32_t>(bytes.size()));
}

uint16_t GuestDriver::take_free() {
  const uint16_t index = free_head_;
  free_head_ = next_free_[index];
  --free_count_;
  return index;
}

std::optional<uint16_t> GuestDriver::add(std::span<const DriverBuffer> chain, Placement placement) {
  SKIFF_CHECK(!chain.empty());
  const bool indirect = placement == Placement::kIndirect;
  SKIFF_CHECK(!indirect || chain.size() <= options_.indirect_entries);
  const size_t needed = indirect ? 1 : chain.size();
  if (needed > free_count_) return std::nullopt;

  const uint16_t head = take_free();
  chain_lengths_[head] = static_cast<uint16_t>(needed);
  std::byte* table = descriptors_;
  if (indirect) {
    const uint64_t table_bytes = options_.indirect_entries * kVirtDescriptorBytes;
    const GuestAddress address = indirect_tables_ + head * table_bytes;
    table = host(address, table_bytes);
    store_descriptor(descriptors_, head,
                     {.address = address.value,
                      .length_bytes = static_cast<uint32_t>(chain.size() * kVirtDescriptorBytes),
                      .flags = VirtDescriptor::kIndirect});
  }
  uint16_t index = indirect ? uint16_t{0} : head;
  for (size_t i = 0; i < chain.size(); ++i) {
    const bool last = i + 1 == chain.size();
    uint16_t next = 0;
    if (!last) next = indirect ? static_cast<uint16_t>(i + 1) : take_free();
    if (!last && !indirect) next_free_[index] = next;  // Links the chain, for collect().
    const unsigned flags = (last ? 0u : unsigned{VirtDescriptor::kNext}) |
                           (chain[i].device_writes ? unsigned{VirtDescriptor::kWrite} : 0u);
    store_descriptor(table, index,
                     {.address = chain[i].address.value,
                      .length_bytes = chain[i].length_bytes,
                      .flags = static_cast<uint16_t>(flags),
                      .next = next});
    index = next;
  }
  put_avail(head);
  return head;
}

void GuestDriver::put_avail(uint16_t head) {
  const uint32_t slot = next_avail_ & (options_.queue_size - 1u);
  ring_store<uint16_t>(avail_ + avail_entry_offset(slot), head);
  ++next_avail_;
}

bool GuestDriver::publish() {
  const uint16_t before = std::exchange(published_avail_, next_avail_);
  ring_store<uint16_t>(avail_ + kRingIndexOffset, next_avail_, std::memory_order_release);
  // 2.7.13.4: the index is visible before we look whether the device wants to know.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  kick_wanted_ = uses_event_idx() ? event_was_passed(avail_event(), next_avail_, before)
                                  : (used_flags() & kUsedNoNotify) == 0;
  return kick_wanted_;
}

uint16_t GuestDriver::offer(std::span<const DriverBuffer> chain, Placement placement) {
  const std::optional<uint16_t> head = add(chain, placement);
  SKIFF_CHECK(head.has_value());
  publish();
  return *head;
}

std::optional<UsedElement> GuestDriver::collect() {
  const auto index = ring_load<uint16_t>(used_ + kRingIndexOffset, std::memory_order_acquire);
  if (index == next_used_) return std::nullopt;
  std::byte* entry = used_ + used_entry_offset(next_used_ & (options_.queue_size - 1u));
  const UsedElement element{ring_load<uint32_t>(entry), ring_load<uint32_t>(entry + 4)};
  ++next_used_;
  if (element.head >= options_.queue_size || chain_lengths_[element.head] == 0) return element;

  uint16_t last = static_cast<uint16_t>(element.head);
  const uint16_t length = std::exchange(chain_lengths_[element.head], uint16_t{0});
  for (uint16_t i = 1; i < length; ++i) last = next_free_[last];
  next_free_[last] = free_head_;
  free_head_ = static_cast<uint16_t>(element.head);
  free_count_ = static_cast<uint16_t>(free_count_ + length);
  return element;
}

std::vector<UsedElement> GuestDriver::collect_all() {
  std::vector<UsedElement> all;
  while (auto element = collect()) all.push_back(*element);
  return all;
}

std::vector<uint32_t> GuestDriver::used_heads() {
  std::vector<uint32_t> heads;
  while (auto element = collect()) heads.push_back(element->head);
  return heads;
}

bool GuestDriver::enable_interrupts() {
  if (uses_event_idx()) {
    set_used_event(next_used_);
  } else {
    ring_store<uint16_t>(avail_ + kRingFlagsOffset, uint16_t{0});
  }
  // The counterpart of the fence in VirtQueue::publish_used().
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return used_index() != next_used_;
}

void GuestDriver::disable_interrupts() {
  // With EVENT_IDX the event field stays behind, which asks for nothing until the index wraps.
  if (!uses_event_idx()) ring_store<uint16_t>(avail_ + kRingFlagsOffset, kAvailNoInterrupt);
}

void GuestDriver::write_descriptor(uint16_t index, const VirtDescriptor& descriptor) {
  SKIFF_CHECK(index < options_.queue_size);
  store_descriptor(descriptors_, index, descriptor);
}

void GuestDriver::offer_raw(std::span<const VirtDescriptor> descriptors) {
  for (size_t i = 0; i < descriptors.size(); ++i)
    write_descriptor(static_cast<uint16_t>(i), descriptors[i]);
  offer_head(0);
}

void GuestDriver::offer_head(uint16_t head) {
  put_avail(head);
  publish();
}

void GuestDriver::set_available_index(uint16_t index) {
  next_avail_ = published_avail_ = index;
  ring_store<uint16_t>(avail_ + kRingIndexOffset, index, std::memory_order_release);
}

void GuestDriver::set_used_event(uint16_t index) {
  ring_store<uint16_t>(avail_ + used_event_offset(options_.queue_size), index);
}

uint16_t GuestDriver::used_index() const {
  return ring_load<uint16_t>(used_ + kRingIndexOffset, std::memory_order_acquire);
}
uint16_t GuestDriver::used_flags() const { return ring_load<uint16_t>(used_ + kRingFlagsOffset); }
uint16_t GuestDriver::avail_event() const {
  return ring_load<uint16_t>(used_ + avail_event_offset(options_.queue_size));
}

}  // namespace skiff::devices
