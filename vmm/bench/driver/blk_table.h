// SPDX-License-Identifier: GPL-2.0-or-later
// BlkTable: the requests of a virtio-blk queue (virtio 1.2, 5.2.6), as many as are ever in flight,
// each with its header, one buffer and its status byte in a place of its own.
//
// Descriptors are written once; a request then costs its header, one flag and an entry of the
// available ring. Freestanding. Thread: one at a time. Ownership: borrows the shared memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "devices/virtio/virt_ring.h"
#include "vmm/bench/driver/driver_memory.h"
#include "vmm/bench/driver/driver_ring.h"

namespace skiff::vmm {

inline constexpr uint32_t kBlkSectorBytes = 512;

enum class BlkDirection : uint8_t { kRead = 0, kWrite = 1 };  // VIRTIO_BLK_T_IN and _OUT.

class BlkTable {
 public:
  static constexpr uint32_t kDepthMax = 1024;
  static constexpr uint32_t kDescriptorsEach = 3;  // Header, data, status.
  static constexpr uint8_t kStatusUnset = 0xff;

  struct Options {
    uint16_t queue_size = 256;
    uint32_t depth = 1;
    uint32_t block_bytes = 4096;  // A multiple of 512.
    bool event_idx = true;
    bool indirect = false;  // One descriptor of the ring for each request.
  };

  static constexpr uint32_t depth_max(uint16_t queue_size, bool indirect) {
    const uint32_t fit = indirect ? queue_size : queue_size / kDescriptorsEach;
    return fit < kDepthMax ? fit : kDepthMax;
  }
  // Of shared memory, at most.
  static constexpr uint64_t bytes_needed(const Options& options) {
    constexpr uint64_t kPages = uint64_t{8} * 4096;  // Rings' ends, and alignment.
    return kPages + options.queue_size * uint64_t{32} +
           options.depth * (options.block_bytes + uint64_t{4096} + kSlotBytes);
  }

  // False when the memory is not enough, or the depth more than fits.
  bool place(DriverMemory& memory, const Options& options) {
    options_ = options;
    if (options.depth == 0 || options.depth > depth_max(options.queue_size, options.indirect))
      return false;
    if (!ring_.place(memory, options.queue_size, options.event_idx)) return false;
    slots_ = memory.allocate(options.depth * kSlotBytes, kSlotBytes);
    data_stride_ = (options.block_bytes + kDataAlignment - 1) & ~(kDataAlignment - 1);
    data_ = memory.allocate(options.depth * data_stride_, kDataAlignment);
    if (slots_ == nullptr || data_ == nullptr) return false;
    for (uint32_t slot = 0; slot < options.depth; ++slot) write_descriptors(memory, slot);
    return true;
  }

  DriverRing& ring() { return ring_; }
  const DriverRing& ring() const { return ring_; }
  const Options& options() const { return options_; }
  std::byte* data(uint32_t slot) const { return data_ + slot * data_stride_; }

  // `sector`: in units of 512 bytes, whatever the disk's blocks are (5.2.6).
  void put(uint32_t slot, BlkDirection direction, uint64_t sector) {
    using devices::ring_store;
    std::byte* at = slots_ + slot * kSlotBytes;
    ring_store<uint32_t>(at, static_cast<uint32_t>(direction));
    ring_store<uint64_t>(at + 8, sector);
    ring_store<uint8_t>(at + kStatusOffset, kStatusUnset);
    // Reads are written by the device, writes are not.
    ring_store<uint16_t>(
        flags_of_data(slot),
        static_cast<uint16_t>(
            devices::VirtDescriptor::kNext |
            (direction == BlkDirection::kRead ? devices::VirtDescriptor::kWrite : 0)));
    ring_.put(static_cast<uint16_t>(options_.indirect ? slot : slot * kDescriptorsEach));
  }
  // Nothing sensible (kDepthMax) for a head that is none of ours.
  uint32_t slot_of(uint32_t head) const {
    const uint32_t slot = options_.indirect ? head : head / kDescriptorsEach;
    const bool first = options_.indirect || head % kDescriptorsEach == 0;
    return first && slot < options_.depth ? slot : kDepthMax;
  }
  uint8_t status(uint32_t slot) const {
    return devices::ring_load<uint8_t>(slots_ + slot * kSlotBytes + kStatusOffset);
  }

 private:
  // A slot: header of 16 bytes, status byte, and from 32 on room for an indirect table.
  static constexpr uint64_t kSlotBytes = 128;
  static constexpr uint64_t kHeaderBytes = 16;
  static constexpr uint64_t kStatusOffset = 16;
  static constexpr uint64_t kIndirectOffset = 32;
  static constexpr uint64_t kDataAlignment = 4096;

  std::byte* table_of(uint32_t slot) const {
    return options_.indirect ? slots_ + slot * kSlotBytes + kIndirectOffset : ring_.descriptors();
  }
  uint32_t first_of(uint32_t slot) const { return options_.indirect ? 0 : slot * kDescriptorsEach; }
  std::byte* flags_of_data(uint32_t slot) const {
    constexpr uint64_t kFlagsOffset = 12;
    return table_of(slot) + (first_of(slot) + 1) * devices::kVirtDescriptorBytes + kFlagsOffset;
  }

  void write_descriptors(const DriverMemory& memory, uint32_t slot) {
    using devices::VirtDescriptor;
    const std::byte* at = slots_ + slot * kSlotBytes;
    std::byte* table = table_of(slot);
    const uint32_t first = first_of(slot);
    const auto next = [first](uint32_t i) { return static_cast<uint16_t>(first + i); };
    devices::store_descriptor(
        table, first, {memory.address_of(at), kHeaderBytes, VirtDescriptor::kNext, next(1)});
    devices::store_descriptor(table, first + 1,
                              {memory.address_of(data(slot)), options_.block_bytes,
                               VirtDescriptor::kNext | VirtDescriptor::kWrite, next(2)});
    devices::store_descriptor(
        table, first + 2, {memory.address_of(at + kStatusOffset), 1, VirtDescriptor::kWrite, 0});
    if (!options_.indirect) return;
    devices::store_descriptor(
        ring_.descriptors(), slot,
        {memory.address_of(table),
         static_cast<uint32_t>(kDescriptorsEach * devices::kVirtDescriptorBytes),
         VirtDescriptor::kIndirect, 0});
  }

  Options options_;
  DriverRing ring_;
  std::byte* slots_ = nullptr;
  std::byte* data_ = nullptr;
  uint64_t data_stride_ = 0;
};

}  // namespace skiff::vmm
