// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/sim/queue_slots.h"

#include <linux/virtio_blk.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/core/guest_memory.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/virtio_device.h"

namespace skiff::sim {

using devices::DriverBuffer;
using devices::GuestDriver;

namespace {

constexpr uint8_t kUntouched = 0xee;

struct Header {
  uint32_t type = 0;
  uint32_t reserved = 0;
  uint64_t sector = 0;
};

}  // namespace

QueueSlots::QueueSlots(const devices::GuestMemory& memory, devices::GuestAddress base,
                       uint64_t first_sector)
    : memory_(memory), base_(base), first_sector_(first_sector), slots_(kSlots) {}

devices::QueueLayout QueueSlots::restart(uint64_t ring_features) {
  driver_ =
      std::make_unique<GuestDriver>(memory_, GuestDriver::Options{.queue_size = kQueueSize,
                                                                  .features = ring_features,
                                                                  .indirect_entries = 3,
                                                                  .base = base_,
                                                                  .arena_bytes = kArenaBytes});
  for (Slot& slot : slots_) {
    slot.header = driver_->allocate(sizeof(Header));
    slot.data = driver_->allocate(kSectorBytes);
    slot.status = driver_->allocate(1);
  }
  return driver_->layout();
}

std::vector<std::byte> QueueSlots::sector_of(uint64_t stamp) {
  std::vector<std::byte> bytes(kSectorBytes);
  for (size_t i = 0; i < kSectorBytes; i += sizeof(stamp))
    std::memcpy(bytes.data() + i, &stamp, sizeof(stamp));
  return bytes;
}

bool QueueSlots::offer(bool write, GuestDriver::Placement placement) {
  const auto free = std::ranges::find(slots_, false, &Slot::busy);
  if (free == slots_.end()) return false;
  Slot& slot = *free;
  const auto index = static_cast<uint64_t>(free - slots_.begin());
  const bool indirect = placement == GuestDriver::Placement::kIndirect;
  if (driver_->free_descriptors() < (indirect ? 1 : 3)) return false;
  slot.busy = true;
  slot.write = write;
  if (write) slot.stamp = (first_sector_ + index) << 32 | next_stamp_++;
  memory_.store(slot.header,
                Header{.type = write ? uint32_t{VIRTIO_BLK_T_OUT} : uint32_t{VIRTIO_BLK_T_IN},
                       .sector = first_sector_ + index});
  memory_.store(slot.status, kUntouched);
  static_cast<void>(memory_.write(slot.data, sector_of(write ? slot.stamp : ~uint64_t{0})));
  const DriverBuffer chain[] = {DriverBuffer::readable(slot.header, sizeof(Header)),
                                {slot.data, kSectorBytes, !write},
                                DriverBuffer::writable(slot.status, 1)};
  slot.head = driver_->offer(chain, placement);
  return true;
}

std::optional<std::string> QueueSlots::collect() {
  while (const auto used = driver_->collect()) {
    const auto found = std::ranges::find_if(
        slots_, [&](const Slot& slot) { return slot.busy && slot.head == used->head; });
    if (found == slots_.end()) return fmt::format("head {} was answered unasked", used->head);
    const uint8_t status = memory_.load<uint8_t>(found->status).value_or(0xff);
    if (status == kUntouched) return fmt::format("head {} was used without a status", used->head);
    if (auto wrong = finish(*found, status)) return wrong;
  }
  return std::nullopt;
}

std::optional<std::string> QueueSlots::settle() {
  for (Slot& slot : slots_) {
    if (!slot.busy) continue;
    const uint8_t status = memory_.load<uint8_t>(slot.status).value_or(0xff);
    slot.busy = status != kUntouched;
    if (!slot.busy) continue;  // Never begun.
    if (auto wrong = finish(slot, status)) return wrong;
  }
  return std::nullopt;
}

std::optional<std::string> QueueSlots::finish(Slot& slot, uint8_t status) {
  slot.busy = false;
  ++answered_;
  if (status != VIRTIO_BLK_S_OK) {
    ++failed_;
    return status == VIRTIO_BLK_S_IOERR ? std::nullopt
                                        : std::optional(fmt::format("status {}", status));
  }
  if (slot.write) {
    slot.contents = slot.stamp;
    return std::nullopt;
  }
  std::vector<std::byte> data(kSectorBytes);
  if (!memory_.read(slot.data, data)) return "the buffer is gone";
  if (data != sector_of(slot.contents)) return "a read found what it never may";
  return std::nullopt;
}

std::optional<std::string> QueueSlots::check(std::span<const std::byte> disk) const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    const auto sector = disk.subspan((first_sector_ + i) * kSectorBytes, kSectorBytes);
    if (!std::ranges::equal(sector, sector_of(slots_[i].contents)))
      return fmt::format("sector {} holds what it never may", first_sector_ + i);
  }
  return std::nullopt;
}

size_t QueueSlots::busy() const {
  return static_cast<size_t>(std::ranges::count(slots_, true, &Slot::busy));
}

}  // namespace skiff::sim
