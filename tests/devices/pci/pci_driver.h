// SPDX-License-Identifier: GPL-2.0-or-later
// PciDriver: the guest's side of PCI, for tests: finds capabilities, sizes and places BARs and sets
// up MSI-X in the order in which Linux does.
//
// Thread: the test's; several may play vCPUs on one device with a driver each.
// Ownership: borrows the buses.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "devices/core/bus.h"
#include "devices/core/msi.h"
#include "devices/pci/pci_registers.h"

namespace skiff::devices {

class PciDriver {
 public:
  static constexpr uint64_t kEcamBase = 0xe000'0000;

  struct Capability {
    uint8_t id;
    uint16_t offset;
  };
  struct VirtioCapability {
    uint8_t type;
    uint8_t bar;
    uint32_t offset;
    uint32_t length;
    uint16_t at;  // Where it is in configuration space.
  };

  PciDriver(const MmioBus& mmio, uint8_t slot)
      : mmio_(mmio), ecam_(kEcamBase + (uint64_t{slot} << 15)) {}

  uint64_t read_memory(uint64_t address, uint32_t size) const {
    std::array<uint8_t, 8> data{};
    mmio_.read(address, std::span(data).first(size));
    return load_le(std::span(data).first(size));
  }
  // False when nobody is there.
  bool write_memory(uint64_t address, uint32_t size, uint64_t value) const {
    std::array<uint8_t, 8> data{};
    store_le(data, value);
    return mmio_.write(address, std::span(data).first(size));
  }
  uint32_t config(uint32_t offset, uint32_t size) const {
    return static_cast<uint32_t>(read_memory(ecam_ + offset, size));
  }
  void set_config(uint32_t offset, uint32_t size, uint32_t value) const {
    write_memory(ecam_ + offset, size, value);
  }

  // Bounded as Linux's walk is: a list that loops ends.
  std::vector<Capability> capabilities() const {
    std::vector<Capability> found;
    if ((config(pci::kStatus, 2) & pci::kStatusCapabilities) == 0) return found;
    auto at = static_cast<uint16_t>(config(pci::kCapabilityPointer, 1) & 0xfc);
    for (int left = 48; left > 0 && at >= pci::kFirstCapability; --left) {
      found.push_back({static_cast<uint8_t>(config(at, 1)), at});
      at = static_cast<uint16_t>(config(at + 1u, 1) & 0xfc);
    }
    return found;
  }
  std::optional<uint16_t> find_capability(uint8_t id) const {
    for (const Capability& one : capabilities())
      if (one.id == id) return one.offset;
    return std::nullopt;
  }
  std::optional<VirtioCapability> find_virtio(uint8_t type) const {
    for (const Capability& one : capabilities()) {
      const uint16_t at = one.offset;
      if (one.id != pci::kCapabilityVendor || config(at + 3u, 1) != type) continue;
      return VirtioCapability{type, static_cast<uint8_t>(config(at + 4u, 1)), config(at + 8u, 4),
                              config(at + 12u, 4), at};
    }
    return std::nullopt;
  }

  void enable(uint16_t command) const {
    set_config(pci::kCommand, 2, config(pci::kCommand, 2) | command);
  }
  void disable(uint16_t command) const {
    set_config(pci::kCommand, 2, config(pci::kCommand, 2) & ~uint32_t{command});
  }
  uint32_t bar_register(uint8_t index) const { return config(bar_offset(index), 4); }
  void set_bar_register(uint8_t index, uint32_t value) const {
    set_config(bar_offset(index), 4, value);
  }
  uint64_t bar(uint8_t index) const {
    const uint32_t low = bar_register(index);
    if ((low & pci::kBarIo) != 0) return low & ~uint32_t{3};
    uint64_t address = low & ~uint32_t{0xf};
    if ((low & pci::kBarMemory64) != 0)
      address |= uint64_t{bar_register(static_cast<uint8_t>(index + 1))} << 32;
    return address;
  }
  void set_bar64(uint8_t index, uint64_t address) const {
    set_bar_register(index, static_cast<uint32_t>(address));
    set_bar_register(static_cast<uint8_t>(index + 1), static_cast<uint32_t>(address >> 32));
  }
  // PCI 3.0, 6.2.5.1: write all ones, read back, restore.
  uint64_t size_bar(uint8_t index) const {
    const uint32_t low = bar_register(index);
    const bool is_wide = (low & pci::kBarIo) == 0 && (low & pci::kBarMemory64) != 0;
    const auto next = static_cast<uint8_t>(index + 1);
    const uint32_t high = is_wide ? bar_register(next) : 0;
    set_bar_register(index, ~uint32_t{0});
    if (is_wide) set_bar_register(next, ~uint32_t{0});
    const uint32_t low_mask = bar_register(index) & ~uint32_t{(low & pci::kBarIo) != 0 ? 3u : 0xfu};
    const uint64_t mask = low_mask | uint64_t{is_wide ? bar_register(next) : ~uint32_t{0}} << 32;
    set_bar_register(index, low);
    if (is_wide) set_bar_register(next, high);
    return ~mask + 1;
  }

  // MSI-X, as Linux: enabled with the function masked, entries written, function unmasked.
  uint64_t msix_table() const {
    const uint32_t where = config(*find_capability(pci::kCapabilityMsix) + 4u, 4);
    return bar(static_cast<uint8_t>(where & 7)) + (where & ~uint32_t{7});
  }
  uint64_t msix_pending() const {
    const uint32_t where = config(*find_capability(pci::kCapabilityMsix) + 8u, 4);
    return bar(static_cast<uint8_t>(where & 7)) + (where & ~uint32_t{7});
  }
  void set_msix_control(uint16_t flags) const {
    set_config(*find_capability(pci::kCapabilityMsix) + 2u, 2, flags);
  }
  void set_vector(uint16_t vector, const MsiMessage& message) const {
    const uint64_t entry = msix_table() + uint64_t{vector} * 16;
    write_memory(entry, 4, message.address);
    write_memory(entry + 4, 4, message.address >> 32);
    write_memory(entry + 8, 4, message.data);
  }
  void mask_vector(uint16_t vector, bool masked) const {
    write_memory(msix_table() + uint64_t{vector} * 16 + 12, 4, masked ? 1 : 0);
  }
  bool is_pending(uint16_t vector) const {
    return ((read_memory(msix_pending() + uint64_t{vector} / 64 * 8, 8) >> (vector % 64)) & 1) != 0;
  }

 private:
  static uint32_t bar_offset(uint8_t index) { return pci::kBar0 + 4u * index; }

  const MmioBus& mmio_;
  uint64_t ecam_;
};

}  // namespace skiff::devices
