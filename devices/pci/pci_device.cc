// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/pci_device.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "devices/core/bus.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_config_space.h"
#include "devices/pci/pci_registers.h"
#include "loop/check.h"
#include "loop/log.h"
#include "loop/mutex.h"

namespace skiff::devices {
namespace {

bool overlaps(uint16_t offset, size_t size, uint16_t other, size_t other_size) {
  return offset < other + other_size && other < offset + size;
}

// The address bits a guest can set: those above the size (PCI 3.0, 6.2.5.1).
uint64_t address_mask(const PciBar& bar) {
  const uint64_t mask = ~(bar.size_bytes - 1);
  return bar.kind == PciBarKind::kMemory64 ? mask : mask & 0xffff'ffff;
}

uint16_t bar_offset(uint8_t index) { return static_cast<uint16_t>(pci::kBar0 + 4 * index); }

uint16_t register_size(const PciBar& bar) { return bar.kind == PciBarKind::kMemory64 ? 8 : 4; }

uint32_t type_bits(PciBarKind kind) {
  switch (kind) {
    case PciBarKind::kMemory32:
      return 0;
    case PciBarKind::kMemory64:
      return pci::kBarMemory64;
    case PciBarKind::kIo:
      return pci::kBarIo;
  }
  return 0;
}

}  // namespace

PciDevice::PciDevice(std::string name, const PciIdentity& identity)
    : name_(std::move(name)), space_(identity) {
  // Interrupt Disable and Bus Master are kept for the guest but mean nothing here: there is no INTx
  // pin, and a virtio driver stops its device by a reset.
  set_writable(pci::kCommand, 2,
               pci::kCommandIo | pci::kCommandMemory | pci::kCommandBusMaster |
                   pci::kCommandInterruptDisable);
}

PciDevice::~PciDevice() {
  const loop::MutexLock lock(apply_mutex_);
  for (const Bar& bar : bars_)
    if (bar.spec && bar.mapped) bus_of(*bar.spec).remove(*bar.mapped);
}

void PciDevice::connect(MmioBus& mmio, PioBus& pio) {
  mmio_ = &mmio;
  pio_ = &pio;
}

void PciDevice::add_bar(uint8_t index, const PciBar& bar) {
  SKIFF_CHECK(index < pci::kBarCount && !bars_[index].spec && bar.registers != nullptr);
  SKIFF_CHECK(bar.kind != PciBarKind::kMemory64 || index + 1 < pci::kBarCount);
  SKIFF_CHECK(std::has_single_bit(bar.size_bytes));
  SKIFF_CHECK(bar.size_bytes >= (bar.kind == PciBarKind::kIo ? 4 : 16));
  bars_[index].spec = bar;
  set_writable(bar_offset(index), register_size(bar), address_mask(bar));
  place_bar(index, 0);
}

void PciDevice::place_bar(uint8_t index, uint64_t address) {
  SKIFF_CHECK(index < pci::kBarCount);
  Bar& bar = bars_[index];
  SKIFF_CHECK(bar.spec);
  SKIFF_CHECK((address & ~address_mask(*bar.spec)) == 0);
  bar.initial_address = address;
  const loop::MutexLock lock(mutex_);
  store_bar(index, address);
}

void PciDevice::store_bar(uint8_t index, uint64_t address) {
  const std::optional<PciBar>& bar = bars_[index].spec;
  SKIFF_CHECK(bar);
  space_.store(bar_offset(index), register_size(*bar), address | type_bits(bar->kind));
}

uint16_t PciDevice::add_capability(uint8_t id, std::span<const uint8_t> body) {
  const loop::MutexLock lock(mutex_);
  return space_.add_capability(id, body);
}

void PciDevice::set_writable(uint16_t offset_bytes, uint16_t size_bytes, uint64_t mask) {
  const loop::MutexLock lock(mutex_);
  space_.set_writable(offset_bytes, size_bytes, mask);
}

void PciDevice::add_msix(Msix& msix, const MsixPlace& place) {
  // Message Control, Table Offset/BIR, PBA Offset/BIR (6.8.2.3 to 6.8.2.5).
  std::array<uint8_t, 10> body{};
  store_le(std::span(body).subspan(0, 2), msix.vector_count() - 1u);
  store_le(std::span(body).subspan(2, 4), place.table_offset_bytes | place.bar);
  store_le(std::span(body).subspan(6, 4), place.pending_offset_bytes | place.bar);
  msix_ = &msix;
  msix_capability_ = add_capability(pci::kCapabilityMsix, body);
  set_writable(static_cast<uint16_t>(msix_capability_ + 2), 2,
               pci::kMsixEnable | pci::kMsixFunctionMask);
}

uint64_t PciDevice::config_load(uint16_t offset_bytes, uint16_t size_bytes) const {
  const loop::MutexLock lock(mutex_);
  return space_.load(offset_bytes, size_bytes);
}

void PciDevice::config_store(uint16_t offset_bytes, uint16_t size_bytes, uint64_t value) {
  const loop::MutexLock lock(mutex_);
  space_.store(offset_bytes, size_bytes, value);
}

void PciDevice::config_read(uint16_t offset_bytes, std::span<uint8_t> data) {
  on_config_read(offset_bytes, data.size());
  const loop::MutexLock lock(mutex_);
  space_.read(offset_bytes, data);
}

void PciDevice::config_write(uint16_t offset_bytes, std::span<const uint8_t> data) {
  {
    const loop::MutexLock lock(mutex_);
    space_.write(offset_bytes, data);
  }
  const bool moves = overlaps(offset_bytes, data.size(), pci::kCommand, 2) ||
                     overlaps(offset_bytes, data.size(), pci::kBar0, 4 * pci::kBarCount);
  const bool switches_msix =
      msix_ != nullptr &&
      overlaps(offset_bytes, data.size(), static_cast<uint16_t>(msix_capability_ + 2), 2);
  if (moves || switches_msix) apply();
  on_config_write(offset_bytes, data.size());
}

std::optional<uint64_t> PciDevice::bar_address(uint8_t index) const {
  const loop::MutexLock lock(apply_mutex_);
  return bars_[index].mapped;
}

AddressBus& PciDevice::bus_of(const PciBar& bar) const {
  if (bar.kind == PciBarKind::kIo) return *pio_;
  return *mmio_;
}

std::optional<uint64_t> PciDevice::wanted_address(uint8_t index) const {
  const std::optional<PciBar>& bar = bars_[index].spec;
  if (!bar) return std::nullopt;
  const uint16_t enable = bar->kind == PciBarKind::kIo ? pci::kCommandIo : pci::kCommandMemory;
  if ((space_.load(pci::kCommand, 2) & enable) == 0) return std::nullopt;
  const uint64_t mask = address_mask(*bar);
  const uint64_t address = space_.load(bar_offset(index), register_size(*bar)) & mask;
  // Nobody has placed it, or somebody is asking for its size (6.2.5.1).
  if (address == 0 || address == mask) return std::nullopt;
  return address;
}

void PciDevice::map_bar(uint8_t index, uint64_t address) {
  Bar& bar = bars_[index];
  SKIFF_CHECK(bar.spec);
  const auto added = bus_of(*bar.spec).add(address, bar.spec->size_bytes, *bar.spec->registers);
  if (!added) {
    SKIFF_LOG_LIMITED(kWarn, "{}: The guest put BAR {} where it cannot be: {}", name_, index,
                      added.error().message());
    return;
  }
  bar.mapped = address;
  on_bar_moved(index, address);
}

// Brings about what the registers say now, which may be more than what the caller wrote.
void PciDevice::apply() {
  const loop::MutexLock lock(apply_mutex_);
  if (mmio_ == nullptr) return;
  std::array<std::optional<uint64_t>, pci::kBarCount> wanted;
  uint64_t msix_control = 0;
  {
    const loop::MutexLock registers_lock(mutex_);
    for (uint8_t i = 0; i < pci::kBarCount && !is_retired_; ++i) wanted[i] = wanted_address(i);
    if (msix_ != nullptr)
      msix_control = space_.load(static_cast<uint16_t>(msix_capability_ + 2), 2);
  }
  // All away first: two BARs may be trading places.
  for (uint8_t i = 0; i < pci::kBarCount; ++i) {
    Bar& bar = bars_[i];
    if (!bar.spec || !bar.mapped || bar.mapped == wanted[i]) continue;
    bus_of(*bar.spec).remove(*bar.mapped);
    bar.mapped.reset();
    on_bar_moved(i, std::nullopt);
  }
  for (uint8_t i = 0; i < pci::kBarCount; ++i)
    if (const auto& address = wanted[i]; address && !bars_[i].mapped) map_bar(i, *address);
  if (msix_ != nullptr)
    msix_->set_control((msix_control & pci::kMsixEnable) != 0,
                       (msix_control & pci::kMsixFunctionMask) != 0);
}

void PciDevice::retire() {
  {
    const loop::MutexLock lock(apply_mutex_);
    is_retired_ = true;
  }
  apply();
}

void PciDevice::reset_config() {
  {
    const loop::MutexLock lock(mutex_);
    space_.store(pci::kCommand, 2, 0);
    space_.store(pci::kCacheLineSize, 1, 0);
    space_.store(pci::kInterruptLine, 1, 0);
    for (uint8_t i = 0; i < pci::kBarCount; ++i)
      if (bars_[i].spec) store_bar(i, bars_[i].initial_address);
    if (msix_ != nullptr)
      space_.store(static_cast<uint16_t>(msix_capability_ + 2), 2, msix_->vector_count() - 1u);
  }
  apply();
  if (msix_ != nullptr) msix_->reset();
}

}  // namespace skiff::devices
