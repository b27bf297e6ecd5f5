// SPDX-License-Identifier: GPL-2.0-or-later
// QueueSlots: the driver of one virtio-blk queue, with a few requests at a time, each for a sector
// of its own, and what each of these sectors must hold.
//
// Thread: the test's. Ownership: borrows the guest memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virtio_device.h"

namespace skiff::sim {

class QueueSlots {
 public:
  static constexpr size_t kSlots = 5;
  static constexpr uint16_t kQueueSize = 16;
  static constexpr uint64_t kArenaBytes = 16 * 1024;
  static constexpr size_t kSectorBytes = 512;

  // The arena begins at `base`, the sectors at `first_sector`, all zeroes.
  QueueSlots(const devices::GuestMemory& memory, devices::GuestAddress base, uint64_t first_sector);

  // A new ring, as after a reset; what was offered to the old one is settled.
  devices::QueueLayout restart(uint64_t ring_features);

  // Offers a write of a new content, respectively a read, with the first free slot; false when
  // there is none. Published; the driver's kick_wanted() says whether to kick.
  bool offer(bool write, devices::GuestDriver::Placement placement);
  devices::GuestDriver& driver() { return *driver_; }

  // Takes what is finished; nothing, or what is wrong with it.
  std::optional<std::string> collect();
  // The queue was reset or stopped: what was not finished has happened, or has not been begun.
  std::optional<std::string> settle();
  // What is wrong on the disk.
  std::optional<std::string> check(std::span<const std::byte> disk) const;

  size_t busy() const;
  uint64_t answered() const { return answered_; }
  uint64_t failed() const { return failed_; }

 private:
  struct Slot {
    devices::GuestAddress header;
    devices::GuestAddress data;
    devices::GuestAddress status;
    uint32_t head = 0;
    bool busy = false;
    bool write = false;
    uint64_t stamp = 0;     // Of the write that is under way.
    uint64_t contents = 0;  // The stamp that the sector holds; 0: zeroes.
  };

  std::optional<std::string> finish(Slot& slot, uint8_t status);
  static std::vector<std::byte> sector_of(uint64_t stamp);

  const devices::GuestMemory& memory_;
  const devices::GuestAddress base_;
  const uint64_t first_sector_;
  std::unique_ptr<devices::GuestDriver> driver_;
  std::vector<Slot> slots_;
  uint64_t next_stamp_ = 1;
  uint64_t answered_ = 0;
  uint64_t failed_ = 0;
};

}  // namespace skiff::sim
