// SPDX-License-Identifier: GPL-2.0-or-later
// PciBus: segment 0, bus 0 of the machine: its host bridge at 00:00.0 and up to 31 devices beside
// it, each with function 0 only.
//
// The guest reaches configuration space in two ways: memory-mapped (ECAM, PCI Express 3.0, 7.2.2)
// and through I/O ports 0xcf8 to 0xcff (PCI 3.0, 3.2.2.3.2).
//
//   ECAM offset    | 27..20 bus = 0 | 19..15 device | 14..12 function | 11..0 register |
//   port 0xcf8     | 31 enable | 23..16 bus = 0 | 15..11 device | 10..8 function | 7..2 register |
//
// Firmware would give each BAR an address; add() does, so that a guest started without firmware
// finds them placed. Decoding is off until the guest sets the command register.
// Thread: configuration accesses from all vCPU threads; create(), add() and reset on the main loop
//         before, or while no, vCPU runs.
// Ownership: the machine's; borrows the buses and the devices, which are destroyed before the
//         buses.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "devices/core/bus.h"
#include "devices/core/device.h"
#include "devices/pci/pci_device.h"
#include "loop/result.h"

namespace skiff::devices {

// Addresses to hand out, from the bottom up.
class PciWindow {
 public:
  PciWindow() = default;
  PciWindow(uint64_t base, uint64_t size_bytes) : base_(base), size_bytes_(size_bytes) {}

  uint64_t base() const { return base_; }
  uint64_t size_bytes() const { return size_bytes_; }
  // `size_bytes` (a power of two) of them, aligned to the size; nothing when there are no more.
  std::optional<uint64_t> allocate(uint64_t size_bytes);

 private:
  uint64_t base_ = 0;
  uint64_t size_bytes_ = 0;
  uint64_t used_bytes_ = 0;
};

class PciBus final : public Device {
 public:
  static constexpr uint8_t kSlotCount = 32;
  // One bus of 32 devices with 8 functions of 4 KiB each.
  static constexpr uint64_t kEcamSizeBytes = uint64_t{kSlotCount} * 8 * pci::kExtendedSizeBytes;
  static constexpr uint16_t kConfigPorts = 0xcf8;
  static constexpr uint16_t kConfigPortCount = 8;

  struct Options {
    uint64_t ecam_base = 0;
    PciWindow memory32;  // Below 4 GiB.
    PciWindow memory64;  // May be empty; 64-bit BARs go to memory32 then.
    PciWindow io;        // May be empty when no device has I/O BARs.
  };

  // Puts ECAM on the MMIO bus; kBusy when something is there already. I/O BARs will be on `pio`.
  static loop::Result<std::unique_ptr<PciBus>> create(MmioBus& mmio, PioBus& pio,
                                                      const Options& options);
  ~PciBus() override;
  PciBus(const PciBus&) = delete;
  PciBus& operator=(const PciBus&) = delete;

  // The device number it got. kExhausted when all are taken or a window is full. The device may not
  // go before the bus, unless no guest runs any more.
  loop::Result<uint8_t> add(PciDevice& device);

  // Configuration access by port, for the I/O bus at kConfigPorts: by itself, or behind another
  // device that has a port among them.
  BusDevice& config_ports() { return ports_; }

  std::string_view name() const override { return "pci"; }
  loop::Task<void> reset() override;  // The bus and its bridge; devices are reset by the machine.

 private:
  // The two windows into configuration space.
  class Ecam final : public BusDevice {
   public:
    explicit Ecam(PciBus& bus) : bus_(bus) {}
    void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
    void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;

   private:
    PciBus& bus_;
  };
  class ConfigPorts final : public BusDevice {
   public:
    explicit ConfigPorts(PciBus& bus) : bus_(bus) {}
    void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
    void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;
    void reset() { address_.store(0, std::memory_order_relaxed); }

   private:
    std::optional<uint32_t> target(uint64_t offset_bytes) const;

    PciBus& bus_;
    std::atomic<uint32_t> address_{0};  // Guests hold a lock over address and data.
  };
  class HostBridge final : public PciDevice {
   public:
    HostBridge();
    loop::Task<void> reset() override;
  };

  PciBus(MmioBus& mmio, PioBus& pio, const Options& options);
  PciDevice* find(uint32_t slot, uint32_t function) const;
  loop::Result<void> place_bars(PciDevice& device);

  MmioBus& mmio_;
  PioBus& pio_;
  Options options_;
  bool is_ecam_added_ = false;
  Ecam ecam_{*this};
  ConfigPorts ports_{*this};
  HostBridge bridge_;
  std::array<PciDevice*, kSlotCount> slots_{};  // Fixed once the guest runs.
};

}  // namespace skiff::devices
