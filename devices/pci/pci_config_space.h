// SPDX-License-Identifier: GPL-2.0-or-later
// PciConfigSpace: the configuration registers of one PCI function, and which of their bits a guest
// may write.
//
// Knows the form of the space (header, capability list), not what the registers do. Of the 4 KiB
// that ECAM shows, the first 256 bytes are kept; the rest reads as zero: no extended capabilities
// (PCI Express 3.0, 7.9.1).
// Thread: none of its own; its owner locks. Ownership: a value.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "devices/pci/pci_registers.h"

namespace skiff::devices {

// What a driver recognises the function by (PCI 3.0, 6.2.1).
struct PciIdentity {
  uint16_t vendor_id = 0;
  uint16_t device_id = 0;
  uint8_t revision = 0;
  uint32_t class_code = 0;  // Base class, subclass, interface: 24 bits.
  uint16_t subsystem_vendor_id = 0;
  uint16_t subsystem_id = 0;
};

class PciConfigSpace {
 public:
  explicit PciConfigSpace(const PciIdentity& identity);

  // The guest's view. A read past the 4 KiB has all bits set, a write there does nothing; both may
  // be of any size and alignment.
  void read(uint16_t offset_bytes, std::span<uint8_t> data) const;
  void write(uint16_t offset_bytes, std::span<const uint8_t> data);

  // Our own view, which no write mask stops. At most 8 bytes, which lie within the first 256.
  uint64_t load(uint16_t offset_bytes, uint16_t size_bytes) const;
  void store(uint16_t offset_bytes, uint16_t size_bytes, uint64_t value);
  // The bits the guest may change from now on.
  void set_writable(uint16_t offset_bytes, uint16_t size_bytes, uint64_t mask);

  // Appends a capability to the list (6.7) and returns its offset. `body` is what follows the id
  // and the pointer to the next one; all capabilities together fit below offset 0x100.
  uint16_t add_capability(uint8_t id, std::span<const uint8_t> body);

 private:
  std::array<uint8_t, pci::kConventionalSizeBytes> bytes_{};
  std::array<uint8_t, pci::kConventionalSizeBytes> writable_{};
  uint16_t last_link_ = pci::kCapabilityPointer;  // Where the offset of the next one goes.
  uint16_t next_free_ = pci::kFirstCapability;
};

}  // namespace skiff::devices
