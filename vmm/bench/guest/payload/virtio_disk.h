// SPDX-License-Identifier: GPL-2.0-or-later
// A virtio-blk device as the payload guest finds it, over PCI or over MMIO.
//
// Freestanding. Thread: boot processor, until the disk is ready; kick() any. Ownership: a value.
#pragma once

#include <cstdint>

#include "vmm/bench/driver/driver_ring.h"
#include "vmm/bench/guest/payload/cpu.h"
#include "vmm/bench/guest/payload/machine_abi.h"
#include "vmm/bench/guest/payload/parameters.h"

namespace skiff::vmm::payload {

// Feature bits (virtio 1.2, 5.2.3 and 6).
inline constexpr uint64_t kFeatureMq = uint64_t{1} << 12;
inline constexpr uint64_t kFeatureIndirect = uint64_t{1} << 28;
inline constexpr uint64_t kFeatureEventIdx = uint64_t{1} << 29;
inline constexpr uint64_t kFeatureVersion1 = uint64_t{1} << 32;

// Device status (virtio 1.2, 2.1).
inline constexpr uint8_t kStatusAcknowledge = 1;
inline constexpr uint8_t kStatusDriver = 2;
inline constexpr uint8_t kStatusDriverOk = 4;
inline constexpr uint8_t kStatusFeaturesOk = 8;

// Where a queue's kick goes.
struct Doorbell {
  uint64_t address = 0;
  uint16_t queue = 0;
  bool wide = false;

  // MMIO registers are 32 bits wide (4.2.2.2), PCI's doorbells 16 (4.1.5.2).
  void kick() const {
    if (wide)
      mmio_write<uint32_t>(address, queue);
    else
      mmio_write<uint16_t>(address, queue);
  }
};

struct VirtioDisk {
  uint64_t features = 0;  // Agreed on.
  uint64_t capacity_sectors = 0;
  uint16_t queues = 0;  // That the device has.
  Doorbell doorbells[PAYLOAD_CPUS_MAX];
};

// What is done with either transport, in the order of virtio 1.2, 3.1.1. begin() finds the device,
// agrees on features and reads its configuration; add_queue() for each queue; then go(). They end
// the guest, saying why, when something is missing.
class PciDisk {
 public:
  void begin(const Parameters& parameters, uint64_t wanted_features, VirtioDisk& disk);
  // `apic_id`: whom its interrupts go to.
  void add_queue(uint16_t queue, uint16_t size, const DriverRing::Places& places, uint8_t apic_id);
  void go();

 private:
  uint64_t bar_address(const Parameters& parameters, uint64_t function, uint32_t bar);
  void read_capabilities(const Parameters& parameters, uint64_t function);

  VirtioDisk* disk_ = nullptr;
  bool irq_ = false;
  uint64_t common_ = 0;
  uint64_t notify_ = 0;
  uint32_t notify_multiplier_ = 0;
  uint64_t device_ = 0;
  uint64_t vectors_ = 0;         // The MSI-X table. 0: none.
  uint64_t vector_control_ = 0;  // The capability's control word.
  uint64_t next_bar_ = 0;
  uint64_t bars_[6] = {};  // Addresses that were given.
};

class MmioDisk {
 public:
  void begin(const Parameters& parameters, uint64_t wanted_features, VirtioDisk& disk);
  void add_queue(uint16_t queue, uint16_t size, const DriverRing::Places& places, uint8_t apic_id);
  void go();
  uint64_t base() const { return base_; }

 private:
  uint64_t base_ = 0;
  VirtioDisk* disk_ = nullptr;
};

}  // namespace skiff::vmm::payload
