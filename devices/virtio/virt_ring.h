// SPDX-License-Identifier: GPL-2.0-or-later
// The split virtqueue as it lies in guest memory (virtio 1.2, 2.7), for the device's side and for
// the driver's side that tests play.
//
// All accesses are atomic: the other side runs at the same time. Thread: any; no state.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace skiff::devices {

// Virtio is little-endian; the accesses below do not swap.
static_assert(std::endian::native == std::endian::little);

// One entry of the descriptor table (2.7.5), as a private copy.
struct VirtDescriptor {
  static constexpr uint16_t kNext = 1;
  static constexpr uint16_t kWrite = 2;  // The device writes this buffer.
  static constexpr uint16_t kIndirect = 4;

  uint64_t address = 0;
  uint32_t length_bytes = 0;
  uint16_t flags = 0;
  uint16_t next = 0;
};
inline constexpr uint64_t kVirtDescriptorBytes = 16;

inline constexpr uint16_t kVirtQueueSizeMax = 32768;
inline constexpr uint16_t kAvailNoInterrupt = 1;  // 2.7.6, available flags.
inline constexpr uint16_t kUsedNoNotify = 1;      // 2.7.8, used flags.

// Offsets within the available and the used ring; the event fields stand behind the last entry.
inline constexpr uint64_t kRingFlagsOffset = 0;
inline constexpr uint64_t kRingIndexOffset = 2;
constexpr uint64_t avail_entry_offset(uint32_t slot) { return 4 + 2 * uint64_t{slot}; }
constexpr uint64_t used_event_offset(uint16_t size) { return avail_entry_offset(size); }
constexpr uint64_t used_entry_offset(uint32_t slot) { return 4 + 8 * uint64_t{slot}; }
constexpr uint64_t avail_event_offset(uint16_t size) { return used_entry_offset(size); }
constexpr uint64_t avail_ring_bytes(uint16_t size) { return used_event_offset(size) + 2; }
constexpr uint64_t used_ring_bytes(uint16_t size) { return avail_event_offset(size) + 2; }

// The pointer must be aligned for T.
template <typename T>
T ring_load(std::byte* at, std::memory_order order = std::memory_order_relaxed) {
  return std::atomic_ref<T>(*reinterpret_cast<T*>(at)).load(order);
}
template <typename T>
void ring_store(std::byte* at, T value, std::memory_order order = std::memory_order_relaxed) {
  std::atomic_ref<T>(*reinterpret_cast<T*>(at)).store(value, order);
}

// Two loads, each byte read once: what is checked afterwards is what is used.
inline VirtDescriptor load_descriptor(std::byte* table, uint32_t index) {
  std::byte* at = table + index * kVirtDescriptorBytes;
  const auto rest = ring_load<uint64_t>(at + 8);
  return {.address = ring_load<uint64_t>(at),
          .length_bytes = static_cast<uint32_t>(rest),
          .flags = static_cast<uint16_t>(rest >> 32),
          .next = static_cast<uint16_t>(rest >> 48)};
}
inline void store_descriptor(std::byte* table, uint32_t index, const VirtDescriptor& descriptor) {
  std::byte* at = table + index * kVirtDescriptorBytes;
  ring_store<uint64_t>(at, descriptor.address);
  ring_store<uint64_t>(at + 8, uint64_t{descriptor.length_bytes} |
                                   uint64_t{descriptor.flags} << 32 |
                                   uint64_t{descriptor.next} << 48);
}

// Has the index of the other side's event field been passed between `before` and `now`? All of it
// modulo 2^16 (2.7.7.1, 2.7.10.1).
constexpr bool event_was_passed(uint16_t event, uint16_t now, uint16_t before) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

}  // namespace skiff::devices
