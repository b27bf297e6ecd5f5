// SPDX-License-Identifier: GPL-2.0-or-later
// DriverRing: the driver's side of a split virtqueue (virtio 1.2, 2.7), without descriptors: those
// belong to a table that is written once.
//
// Freestanding: the same code drives a queue in the payload guest, in this process, and in a
// vhost-user back end. Thread: one at a time. Ownership: borrows the shared memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "devices/virtio/virt_ring.h"
#include "vmm/bench/driver/driver_memory.h"

namespace skiff::vmm {

class DriverRing {
 public:
  struct Used {
    uint32_t head = 0;
    uint32_t written_bytes = 0;
  };
  // Guest-physical: what the device is told.
  struct Places {
    uint64_t descriptors = 0;
    uint64_t available = 0;
    uint64_t used = 0;
  };

  // `size`: a power of two. False when the memory is not enough.
  bool place(DriverMemory& memory, uint16_t size, bool event_idx) {
    size_ = size;
    event_idx_ = event_idx;
    descriptors_ = memory.allocate(size * devices::kVirtDescriptorBytes, kPageBytes);
    avail_ = memory.allocate(devices::avail_ring_bytes(size), kPageBytes);
    used_ = memory.allocate(devices::used_ring_bytes(size), kPageBytes);
    if (descriptors_ == nullptr || avail_ == nullptr || used_ == nullptr) return false;
    places_ = {memory.address_of(descriptors_), memory.address_of(avail_),
               memory.address_of(used_)};
    disable_interrupts();
    return true;
  }

  uint16_t size() const { return size_; }
  const Places& places() const { return places_; }
  std::byte* descriptors() const { return descriptors_; }

  // The device does not see it before publish(). There are never more than size() in flight.
  void put(uint16_t head) {
    const uint32_t slot = next_avail_ & (size_ - 1U);
    devices::ring_store<uint16_t>(avail_ + devices::avail_entry_offset(slot), head);
    ++next_avail_;
  }
  // True when the device wants a kick (2.7.10).
  bool publish() {
    using devices::ring_load;
    const uint16_t before = published_avail_;
    published_avail_ = next_avail_;
    devices::ring_store<uint16_t>(avail_ + devices::kRingIndexOffset, next_avail_,
                                  std::memory_order_release);
    // The index must be out before the device's wish is read, or both may wait for the other.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (event_idx_)
      return devices::event_was_passed(
          ring_load<uint16_t>(used_ + devices::avail_event_offset(size_)), next_avail_, before);
    return (ring_load<uint16_t>(used_ + devices::kRingFlagsOffset) & devices::kUsedNoNotify) == 0;
  }

  // Looks for what the device has finished; take() gives out what was seen.
  bool look() {
    seen_used_ =
        devices::ring_load<uint16_t>(used_ + devices::kRingIndexOffset, std::memory_order_acquire);
    return seen_used_ != next_used_;
  }
  bool take(Used& used) {
    if (seen_used_ == next_used_) return false;
    std::byte* entry = used_ + devices::used_entry_offset(next_used_ & (size_ - 1U));
    used.head = devices::ring_load<uint32_t>(entry);
    used.written_bytes = devices::ring_load<uint32_t>(entry + sizeof(uint32_t));
    ++next_used_;
    return true;
  }

  // Asks for an interrupt for what comes next; true when there is something already (2.7.7).
  bool enable_interrupts() {
    if (event_idx_)
      devices::ring_store<uint16_t>(avail_ + devices::used_event_offset(size_), next_used_);
    else
      devices::ring_store<uint16_t>(avail_ + devices::kRingFlagsOffset, uint16_t{0});
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return look();
  }
  void disable_interrupts() {
    // An event that will not come by for 2^15 requests; whoever polls sets it again by then.
    if (event_idx_)
      devices::ring_store<uint16_t>(avail_ + devices::used_event_offset(size_),
                                    static_cast<uint16_t>(next_used_ + 0x8000));
    else
      devices::ring_store<uint16_t>(avail_ + devices::kRingFlagsOffset, devices::kAvailNoInterrupt);
  }

 private:
  static constexpr uint64_t kPageBytes = 4096;

  std::byte* descriptors_ = nullptr;
  std::byte* avail_ = nullptr;
  std::byte* used_ = nullptr;
  Places places_;
  uint16_t size_ = 0;
  bool event_idx_ = false;
  uint16_t next_avail_ = 0;
  uint16_t published_avail_ = 0;
  uint16_t next_used_ = 0;
  uint16_t seen_used_ = 0;
};

}  // namespace skiff::vmm
