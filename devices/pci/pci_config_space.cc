// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/pci_config_space.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/bus.h"
#include "devices/pci/pci_registers.h"
#include "loop/check.h"

namespace skiff::devices {

PciConfigSpace::PciConfigSpace(const PciIdentity& identity) {
  store(pci::kVendorId, 2, identity.vendor_id);
  store(pci::kDeviceId, 2, identity.device_id);
  store(pci::kRevision, 4, (identity.class_code << 8) | identity.revision);
  store(pci::kSubsystemVendorId, 2, identity.subsystem_vendor_id);
  store(pci::kSubsystemId, 2, identity.subsystem_id);
  // Scratch registers, which firmware and drivers leave notes in (6.2.4).
  set_writable(pci::kCacheLineSize, 1, 0xff);
  set_writable(pci::kInterruptLine, 1, 0xff);
}

void PciConfigSpace::read(uint16_t offset_bytes, std::span<uint8_t> data) const {
  for (size_t i = 0; i < data.size(); ++i) {
    const size_t at = offset_bytes + i;
    const uint8_t beyond = at < pci::kExtendedSizeBytes ? 0x00 : 0xff;
    data[i] = at < bytes_.size() ? bytes_[at] : beyond;
  }
}

void PciConfigSpace::write(uint16_t offset_bytes, std::span<const uint8_t> data) {
  for (size_t i = 0; i < data.size() && offset_bytes + i < bytes_.size(); ++i) {
    const uint8_t mask = writable_[offset_bytes + i];
    uint8_t& byte = bytes_[offset_bytes + i];
    byte = static_cast<uint8_t>((byte & ~mask) | (data[i] & mask));
  }
}

uint64_t PciConfigSpace::load(uint16_t offset_bytes, uint16_t size_bytes) const {
  SKIFF_CHECK(size_bytes <= 8 && offset_bytes + size_bytes <= bytes_.size());
  return load_le(std::span(bytes_).subspan(offset_bytes, size_bytes));
}

void PciConfigSpace::store(uint16_t offset_bytes, uint16_t size_bytes, uint64_t value) {
  SKIFF_CHECK(size_bytes <= 8 && offset_bytes + size_bytes <= bytes_.size());
  store_le(std::span(bytes_).subspan(offset_bytes, size_bytes), value);
}

void PciConfigSpace::set_writable(uint16_t offset_bytes, uint16_t size_bytes, uint64_t mask) {
  SKIFF_CHECK(size_bytes <= 8 && offset_bytes + size_bytes <= writable_.size());
  store_le(std::span(writable_).subspan(offset_bytes, size_bytes), mask);
}

uint16_t PciConfigSpace::add_capability(uint8_t id, std::span<const uint8_t> body) {
  const uint16_t offset = next_free_;
  SKIFF_CHECK(offset + 2 + body.size() <= pci::kConventionalSizeBytes);
  store(last_link_, 1, offset);
  store(offset, 1, id);
  std::ranges::copy(body, bytes_.begin() + offset + 2);
  store(pci::kStatus, 2, load(pci::kStatus, 2) | pci::kStatusCapabilities);
  last_link_ = static_cast<uint16_t>(offset + 1);
  // Capabilities start on a dword (6.7).
  next_free_ = static_cast<uint16_t>((offset + 2 + body.size() + 3) & ~size_t{3});
  return offset;
}

}  // namespace skiff::devices
