// SPDX-License-Identifier: GPL-2.0-or-later
// AddressBus: finds the device behind an I/O port or a guest-physical address.
//
// Thread: read() and write() from all vCPU threads at once; add() and remove() from any. A device
// is called with no
//         bus lock held, so that it may move itself on the bus from inside a write (PCI BARs).
// Ownership: borrows the devices; remove them first.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "loop/mutex.h"
#include "loop/result.h"

namespace skiff::devices {

// A device's registers. Called from vCPU threads, several at once: it locks for itself.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  // `offset_bytes` is from the start of the range it was added with; `data` is the access, 1 to 8
  // bytes, little-endian. A read that means nothing leaves all bits set.
  virtual void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) = 0;
  virtual void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) = 0;
};

class AddressBus {
 public:
  // kBusy when the range overlaps one that is there, kInvalidArgument when it is empty or wraps.
  loop::Result<void> add(uint64_t base, uint64_t size_bytes, BusDevice& device);
  // What was added at `base` is gone when this returns, except from a vCPU that is inside it at
  // this moment.
  void remove(uint64_t base);
  // Answers in the place of something that has gone without its driver's knowledge, for as long as
  // nobody else wants any of the range: add() takes it away. Nothing happens when it is taken.
  void add_placeholder(uint64_t base, uint64_t size_bytes, BusDevice& device);
  void remove_placeholders();

  // False (and for a read all bits set) when nobody is there.
  bool read(uint64_t address, std::span<uint8_t> data) const;
  bool write(uint64_t address, std::span<const uint8_t> data) const;

 private:
  struct Range {
    uint64_t base;
    uint64_t size_bytes;
    BusDevice* device;
    bool is_placeholder = false;
  };
  loop::Result<void> insert(const Range& range) SKIFF_REQUIRES(mutex_);
  Range find(uint64_t address, uint64_t size_bytes) const;

  mutable loop::SharedMutex mutex_;
  std::vector<Range> ranges_ SKIFF_GUARDED_BY(mutex_);  // Sorted by base.
};

// Two address spaces, two types that cannot be mixed up.
class PioBus final : public AddressBus {};
class MmioBus final : public AddressBus {};

// Little-endian access helpers for devices with registers narrower or wider than the access.
uint64_t load_le(std::span<const uint8_t> data);
void store_le(std::span<uint8_t> data, uint64_t value);

}  // namespace skiff::devices
