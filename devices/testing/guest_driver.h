// SPDX-License-Identifier: GPL-2.0-or-later
// GuestDriver: the driver's side of a split virtqueue (virtio 1.2, 2.7), for tests, fuzzers and
// benchmarks. It follows the rules unless one of the raw functions is used.
//
// Thread: one thread at a time, not necessarily the device's. Ownership: borrows the memory.
//
//   GuestDriver driver(memory, {.queue_size = 8});
//   const GuestAddress data = driver.allocate(512);
//   const uint16_t head = driver.offer({DriverBuffer::readable(data, 512)});
//   ... the device runs ...
//   std::optional<UsedElement> used = driver.collect();
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/virtio/virt_ring.h"
#include "devices/virtio/virtio_device.h"

namespace skiff::devices {

struct DriverBuffer {
  GuestAddress address;
  uint32_t length_bytes = 0;
  bool device_writes = false;

  static DriverBuffer readable(GuestAddress address, uint32_t length_bytes) {
    return {address, length_bytes, false};
  }
  static DriverBuffer writable(GuestAddress address, uint32_t length_bytes) {
    return {address, length_bytes, true};
  }
};

struct UsedElement {
  uint32_t head = 0;
  uint32_t written_bytes = 0;
  bool operator==(const UsedElement&) const = default;
};

class GuestDriver {
 public:
  enum class Placement : uint8_t { kDirect, kIndirect };

  struct Options {
    uint16_t queue_size = 8;
    uint64_t features = 0;          // kVirtioRing* bits that this driver uses.
    uint16_t indirect_entries = 0;  // Room per head for an indirect table.
    GuestAddress base{};            // Where the ring goes, aligned to 16.
    uint64_t arena_bytes = 0;       // For ring and allocate(); 0: to the end of base's region.
  };

  // Places an empty ring at `base`; it and the arena must be RAM.
  GuestDriver(const GuestMemory& memory, const Options& options);

  const QueueLayout& layout() const { return layout_; }
  uint64_t features() const { return options_.features; }
  // The first address behind the arena: where the next queue's driver may begin.
  GuestAddress arena_end() const { return arena_end_; }

  // Guest memory for buffers, never given back.
  GuestAddress allocate(uint64_t size_bytes, uint64_t alignment = 16);
  // `text` copied into allocated memory, as a buffer the device reads.
  DriverBuffer allocate_with(std::span<const std::byte> bytes);

  // Puts a chain into the ring; the device does not see it before publish(). Returns its head, or
  // nothing when descriptors are lacking. Allocates nothing.
  std::optional<uint16_t> add(std::span<const DriverBuffer> chain,
                              Placement placement = Placement::kDirect);
  // Shows the device what was added; true when it wants a kick (2.7.10).
  bool publish();
  // add() and publish(); there must be room.
  uint16_t offer(std::span<const DriverBuffer> chain, Placement placement = Placement::kDirect);
  uint16_t offer(std::initializer_list<DriverBuffer> chain,
                 Placement placement = Placement::kDirect) {
    return offer(std::span(chain.begin(), chain.size()), placement);
  }
  // Did the device want a kick at the last publish()?
  bool kick_wanted() const { return kick_wanted_; }

  // The next finished chain; its descriptors are free again. The device's numbers are not believed:
  // an unknown head frees nothing.
  std::optional<UsedElement> collect();
  std::vector<UsedElement> collect_all();
  std::vector<uint32_t> used_heads();  // Of collect_all().

  // Asks for an interrupt for the next used element; true when there are some already (2.7.7).
  bool enable_interrupts();
  void disable_interrupts();

  uint16_t free_descriptors() const { return free_count_; }

  // Raw access, for drivers that break the rules.
  void write_descriptor(uint16_t index, const VirtDescriptor& descriptor);
  // Descriptors 0, 1, ... as they are, and head 0 offered.
  void offer_raw(std::span<const VirtDescriptor> descriptors);
  void offer_raw(std::initializer_list<VirtDescriptor> descriptors) {
    offer_raw(std::span(descriptors.begin(), descriptors.size()));
  }
  // Any head number, offered and published.
  void offer_head(uint16_t head);
  void set_available_index(uint16_t index);
  void set_used_event(uint16_t index);
  uint16_t available_index() const { return next_avail_; }
  uint16_t used_index() const;   // As the device last published it.
  uint16_t used_flags() const;   // The device's wish for kicks without EVENT_IDX.
  uint16_t avail_event() const;  // The same with EVENT_IDX.

 private:
  bool uses_event_idx() const { return (options_.features & kVirtioRingEventIdx) != 0; }
  std::byte* host(GuestAddress address, uint64_t size_bytes) const;
  uint16_t take_free();
  void put_avail(uint16_t head);

  const GuestMemory& memory_;
  const Options options_;
  QueueLayout layout_;
  GuestAddress indirect_tables_;
  GuestAddress arena_next_;
  GuestAddress arena_end_;
  std::byte* descriptors_ = nullptr;
  std::byte* avail_ = nullptr;
  std::byte* used_ = nullptr;
  uint16_t next_avail_ = 0;
  uint16_t published_avail_ = 0;
  uint16_t next_used_ = 0;
  uint16_t free_head_ = 0;
  uint16_t free_count_ = 0;
  bool kick_wanted_ = false;
  std::vector<uint16_t> next_free_;      // By descriptor: the next free one, or of its chain.
  std::vector<uint16_t> chain_lengths_;  // By head; 0: not in flight.
};

}  // namespace skiff::devices
