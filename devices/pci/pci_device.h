// SPDX-License-Identifier: GPL-2.0-or-later
// PciDevice: the part of a PCI function that is the same for all: configuration space, base address
// registers that the guest may move at any time, MSI-X control.
//
// What a configuration write leads to (ranges moved on the buses, MSI-X switched, doorbells moved)
// is brought about from the registers' latest state, by one thread at a time: however vCPUs race,
// the last state written is the one that holds.
// Thread: config_read() and config_write() from all vCPU threads; setting up, and reset, on the
//         main loop while no vCPU runs. Two mutexes: the registers' is held only for the access;
//         the consequences' also while a bus, the interrupt controller or a doorbell changes, which
//         may enter the kernel shortly. No loop takes either while vCPUs run.
// Ownership: the machine's, like every device; borrows the buses and the registers behind its BARs.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "devices/core/bus.h"
#include "devices/core/device.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_config_space.h"
#include "loop/mutex.h"

namespace skiff::devices {

enum class PciBarKind : uint8_t { kMemory32, kMemory64, kIo };

// A range of registers that the guest places (PCI 3.0, 6.2.5.1). A 64-bit one uses two BARs.
struct PciBar {
  PciBarKind kind = PciBarKind::kMemory32;
  uint64_t size_bytes = 0;  // A power of two; at least 16, and 4 to 256 for I/O.
  BusDevice* registers = nullptr;
};

class PciDevice : public Device {
 public:
  ~PciDevice() override;  // Takes its BARs off the buses.
  PciDevice(const PciDevice&) = delete;
  PciDevice& operator=(const PciDevice&) = delete;

  std::string_view name() const override { return name_; }

  // Accesses of any size and alignment within the 4 KiB of the function.
  void config_read(uint16_t offset_bytes, std::span<uint8_t> data);
  void config_write(uint16_t offset_bytes, std::span<const uint8_t> data);

  // Where a BAR answers now; nothing while decoding is off, while it has no usable address, and
  // while somebody else is there.
  std::optional<uint64_t> bar_address(uint8_t index) const;

  // For PciBus, once, before the guest can see it: the buses to appear on, and the address a BAR
  // has after reset.
  void connect(MmioBus& mmio, PioBus& pio);
  const std::optional<PciBar>& bar(uint8_t index) const { return bars_[index].spec; }
  void place_bar(uint8_t index, uint64_t address);
  uint64_t initial_address(uint8_t index) const { return bars_[index].initial_address; }
  // For PciBus, once, on any thread: the device is taken out. No BAR answers any more, whatever is
  // written from now on; whoever is inside an access to one may still be there.
  void retire();

 protected:
  PciDevice(std::string name, const PciIdentity& identity);

  // The device's form, from its constructor.
  void add_bar(uint8_t index, const PciBar& bar);
  uint16_t add_capability(uint8_t id, std::span<const uint8_t> body);
  void set_writable(uint16_t offset_bytes, uint16_t size_bytes, uint64_t mask);
  struct MsixPlace {
    uint8_t bar = 0;
    uint32_t table_offset_bytes = 0;
    uint32_t pending_offset_bytes = 0;
  };
  void add_msix(Msix& msix, const MsixPlace& place);

  // A register as it is, and set past the write mask.
  uint64_t config_load(uint16_t offset_bytes, uint16_t size_bytes) const;
  void config_store(uint16_t offset_bytes, uint16_t size_bytes, uint64_t value);

  // Before a read and after a write of the guest; vCPU threads, several at once, no lock held.
  virtual void on_config_read(uint16_t /*offset_bytes*/, size_t /*size_bytes*/) {}
  virtual void on_config_write(uint16_t /*offset_bytes*/, size_t /*size_bytes*/) {}
  // The BAR answers at another address now, or nowhere. One call at a time, under the mutex of the
  // consequences: it may not access the configuration of this device.
  virtual void on_bar_moved(uint8_t /*index*/, std::optional<uint64_t> /*address*/) {}

  // The registers as after power-on, with their consequences.
  void reset_config();

 private:
  struct Bar {
    std::optional<PciBar> spec;  // Fixed once the guest runs.
    uint64_t initial_address = 0;
    std::optional<uint64_t> mapped;
  };

  void apply() SKIFF_EXCLUDES(apply_mutex_);
  std::optional<uint64_t> wanted_address(uint8_t index) const SKIFF_REQUIRES(mutex_);
  void store_bar(uint8_t index, uint64_t address) SKIFF_REQUIRES(mutex_);
  void map_bar(uint8_t index, uint64_t address) SKIFF_REQUIRES(apply_mutex_);
  AddressBus& bus_of(const PciBar& bar) const;

  const std::string name_;
  MmioBus* mmio_ = nullptr;
  PioBus* pio_ = nullptr;
  Msix* msix_ = nullptr;
  uint16_t msix_capability_ = 0;

  mutable loop::Mutex apply_mutex_;  // Taken before mutex_.
  mutable loop::Mutex mutex_;
  std::array<Bar, pci::kBarCount> bars_;  // `mapped` is under apply_mutex_.
  bool is_retired_ SKIFF_GUARDED_BY(apply_mutex_) = false;
  PciConfigSpace space_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
