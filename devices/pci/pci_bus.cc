// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/pci/pci_bus.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "devices/core/bus.h"
#include "devices/pci/pci_config_space.h"
#include "devices/pci/pci_device.h"
#include "devices/pci/pci_registers.h"
#include "loop/check.h"
#include "loop/result.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

// The generic PCI Express host bridge of the virtual-machine vendor id 1b36: guests know it and
// expect nothing of it beyond its class.
constexpr PciIdentity kBridgeIdentity = {.vendor_id = 0x1b36,
                                         .device_id = 0x0008,
                                         .class_code = pci::kClassHostBridge,
                                         .subsystem_vendor_id = 0x1af4,
                                         .subsystem_id = 0x1100};

constexpr uint32_t kConfigEnable = uint32_t{1} << 31;
constexpr uint64_t kDataPortOffset = 4;  // 0xcfc.

}  // namespace

std::optional<uint64_t> PciWindow::allocate(uint64_t size_bytes) {
  // Offsets, not addresses: the window may end at the end of all addresses.
  uint64_t free = 0;
  auto next = used_.begin();
  for (;; ++next) {
    const uint64_t end = next == used_.end() ? size_bytes_ : next->base - base_;
    const uint64_t padding = (size_bytes - (base_ + free) % size_bytes) % size_bytes;
    const uint64_t left = end - free;
    if (padding <= left && size_bytes <= left - padding) {
      const uint64_t start = base_ + free + padding;
      used_.insert(next, {start, size_bytes});
      return start;
    }
    if (next == used_.end()) return std::nullopt;
    free = next->base - base_ + next->size_bytes;
  }
}

bool PciWindow::release(uint64_t base) {
  return std::erase_if(used_, [base](const Used& used) { return used.base == base; }) != 0;
}

loop::Result<std::unique_ptr<PciBus>> PciBus::create(MmioBus& mmio, PioBus& pio,
                                                     const Options& options) {
  std::unique_ptr<PciBus> bus(new PciBus(mmio, pio, options));
  if (auto added = mmio.add(options.ecam_base, kEcamSizeBytes, bus->ecam_); !added)
    return added.error().with_context("PCI configuration space in memory");
  bus->is_ecam_added_ = true;
  return bus;
}

PciBus::PciBus(MmioBus& mmio, PioBus& pio, const Options& options)
    : mmio_(mmio), pio_(pio), options_(options) {
  bridge_.connect(mmio, pio);
  slots_[0].store(&bridge_, std::memory_order_release);
}

PciBus::~PciBus() {
  mmio_.remove_placeholders();
  pio_.remove_placeholders();
  if (is_ecam_added_) mmio_.remove(options_.ecam_base);
}

loop::Result<void> PciBus::place_bars(PciDevice& device) {
  for (uint8_t i = 0; i < pci::kBarCount; ++i) {
    const std::optional<PciBar>& bar = device.bar(i);
    if (!bar) continue;
    std::optional<uint64_t> address;
    if (bar->kind == PciBarKind::kIo) {
      address = options_.io.allocate(bar->size_bytes);
    } else {
      if (bar->kind == PciBarKind::kMemory64) address = options_.memory64.allocate(bar->size_bytes);
      if (!address) address = options_.memory32.allocate(bar->size_bytes);
    }
    if (!address)
      return loop::Error(loop::ErrorKind::kExhausted,
                         fmt::format("{}: No room for the {} bytes of BAR {} in the PCI window",
                                     device.name(), bar->size_bytes, i));
    device.place_bar(i, *address);
  }
  return {};
}

std::optional<uint8_t> PciBus::free_slot() const {
  std::optional<uint8_t> best;
  for (uint8_t slot = 1; slot < kSlotCount; ++slot) {
    if (find(slot, 0) != nullptr) continue;
    if (!best || last_added_[slot] < last_added_[*best]) best = slot;
  }
  return best;
}

loop::Result<uint8_t> PciBus::add(PciDevice& device) {
  const std::optional<uint8_t> slot = free_slot();
  if (!slot)
    return loop::Error(
        loop::ErrorKind::kExhausted,
        fmt::format("{}: All {} PCI devices are taken; use fewer, or bus=mmio for some",
                    device.name(), kSlotCount - 1));
  if (auto placed = place_bars(device); !placed) {
    release(device);
    return placed.error();
  }
  device.connect(mmio_, pio_);
  last_added_[*slot] = ++added_;
  slots_[*slot].store(&device, std::memory_order_release);
  return *slot;
}

AddressBus& PciBus::bus_of(const PciBar& bar) {
  if (bar.kind == PciBarKind::kIo) return pio_;
  return mmio_;
}

void PciBus::take(uint8_t slot, Removal removal) {
  SKIFF_CHECK(slot > 0 && slot < kSlotCount);
  PciDevice* device = slots_[slot].exchange(nullptr, std::memory_order_acq_rel);
  SKIFF_CHECK(device != nullptr);
  std::array<std::optional<uint64_t>, pci::kBarCount> answered;
  for (uint8_t i = 0; i < pci::kBarCount; ++i) answered[i] = device->bar_address(i);
  device->retire();
  if (removal == Removal::kEjected) return;
  for (uint8_t i = 0; i < pci::kBarCount; ++i) {
    const std::optional<PciBar>& bar = device->bar(i);
    if (bar && answered[i]) bus_of(*bar).add_placeholder(*answered[i], bar->size_bytes, gone_);
  }
}

void PciBus::release(const PciDevice& device) {
  for (uint8_t i = 0; i < pci::kBarCount; ++i) {
    const std::optional<PciBar>& bar = device.bar(i);
    if (!bar) continue;
    const uint64_t base = device.initial_address(i);
    if (bar->kind == PciBarKind::kIo) {
      options_.io.release(base);
    } else if (!options_.memory64.release(base)) {
      options_.memory32.release(base);
    }
  }
}

PciDevice* PciBus::find(uint32_t slot, uint32_t function) const {
  if (function != 0 || slot >= slots_.size()) return nullptr;
  return slots_[slot].load(std::memory_order_acquire);
}

loop::Task<void> PciBus::reset() {
  ports_.reset();
  mmio_.remove_placeholders();
  pio_.remove_placeholders();
  co_await bridge_.reset();
}

PciBus::HostBridge::HostBridge() : PciDevice("pci-host-bridge", kBridgeIdentity) {}

loop::Task<void> PciBus::HostBridge::reset() {
  reset_config();
  co_return;
}

void PciBus::GoneRegisters::bus_read(uint64_t /*offset_bytes*/, std::span<uint8_t> data) {
  std::ranges::fill(data, uint8_t{0});
}

void PciBus::Ecam::bus_read(uint64_t offset_bytes, std::span<uint8_t> data) {
  std::ranges::fill(data, uint8_t{0xff});
  PciDevice* device = bus_.find((offset_bytes >> 15) & 0x1f, (offset_bytes >> 12) & 7);
  if (device != nullptr) device->config_read(offset_bytes & 0xfff, data);
}

void PciBus::Ecam::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  PciDevice* device = bus_.find((offset_bytes >> 15) & 0x1f, (offset_bytes >> 12) & 7);
  if (device != nullptr) device->config_write(offset_bytes & 0xfff, data);
}

// The address register, when an access to the data ports goes somewhere.
std::optional<uint32_t> PciBus::ConfigPorts::target(uint64_t offset_bytes) const {
  const uint32_t address = address_.load(std::memory_order_relaxed);
  const bool is_bus_zero = ((address >> 16) & 0xff) == 0;
  if (offset_bytes < kDataPortOffset || (address & kConfigEnable) == 0 || !is_bus_zero)
    return std::nullopt;
  return address;
}

void PciBus::ConfigPorts::bus_read(uint64_t offset_bytes, std::span<uint8_t> data) {
  std::ranges::fill(data, uint8_t{0xff});
  // The address register answers only as a whole; narrower accesses would belong to other ports
  // there (3.2.2.3.2).
  if (offset_bytes == 0 && data.size() == 4)
    return store_le(data, address_.load(std::memory_order_relaxed));
  const std::optional<uint32_t> address = target(offset_bytes);
  if (!address) return;
  PciDevice* device = bus_.find((*address >> 11) & 0x1f, (*address >> 8) & 7);
  const uint64_t offset = (*address & 0xfc) + (offset_bytes - kDataPortOffset);
  if (device != nullptr) device->config_read(static_cast<uint16_t>(offset), data);
}

void PciBus::ConfigPorts::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  if (offset_bytes == 0 && data.size() == 4)
    return address_.store(static_cast<uint32_t>(load_le(data)), std::memory_order_relaxed);
  const std::optional<uint32_t> address = target(offset_bytes);
  if (!address) return;
  PciDevice* device = bus_.find((*address >> 11) & 0x1f, (*address >> 8) & 7);
  const uint64_t offset = (*address & 0xfc) + (offset_bytes - kDataPortOffset);
  if (device != nullptr) device->config_write(static_cast<uint16_t>(offset), data);
}

}  // namespace skiff::devices
