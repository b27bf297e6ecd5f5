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
//
// Devices come and go while the guest runs: a slot changes hands by one atomic store. What was
// taken out may still be used by a vCPU that had found it before: its owner keeps it until every
// vCPU has been outside all accesses once (docs/hotplug.md).
// Thread: configuration accesses and take() from all vCPU threads; create(), add(), release() and
//         reset on the main loop.
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
#include <vector>

#include "devices/core/bus.h"
#include "devices/core/device.h"
#include "devices/pci/pci_device.h"
#include "loop/result.h"

namespace skiff::devices {

// Addresses to hand out, the lowest first that fit.
class PciWindow {
 public:
  PciWindow() = default;
  PciWindow(uint64_t base, uint64_t size_bytes) : base_(base), size_bytes_(size_bytes) {}

  uint64_t base() const { return base_; }
  uint64_t size_bytes() const { return size_bytes_; }
  // `size_bytes` (a power of two) of them, aligned to the size; nothing when there are no more.
  std::optional<uint64_t> allocate(uint64_t size_bytes);
  // Gives back what was allocated at `base`; false when it was not from here.
  bool release(uint64_t base);

 private:
  struct Used {
    uint64_t base;
    uint64_t size_bytes;
  };
  uint64_t base_ = 0;
  uint64_t size_bytes_ = 0;
  std::vector<Used> used_;  // Sorted.
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

  // The device number it got: the first that never had a device, or else the one that has been
  // empty for longest, so that a guest which is slow to see the one go does not take the other for
  // it. kExhausted when all are taken or a window is full. The device may not go before the bus,
  // unless it was taken out or no guest runs any more.
  loop::Result<uint8_t> add(PciDevice& device);

  // How a device goes: the guest gave it up, or it is pulled out of the guest's hands. A driver
  // that finds its device gone tends to wait for a reset to be done, for ever if all registers read
  // as ones: where a BAR was, they read as zero then, until the range is used for something else.
  enum class Removal : uint8_t { kEjected, kSurprise };
  // Any thread, once for each device: from here on nobody finds it. See above for who still may be
  // inside.
  void take(uint8_t slot, Removal removal);
  // The addresses that add() chose for a device that was taken out are free again.
  void release(const PciDevice& device);

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
  // What a driver reads where its device was.
  class GoneRegisters final : public BusDevice {
   public:
    void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
    void bus_write(uint64_t, std::span<const uint8_t>) override {}
  };
  class HostBridge final : public PciDevice {
   public:
    HostBridge();
    loop::Task<void> reset() override;
  };

  PciBus(MmioBus& mmio, PioBus& pio, const Options& options);
  PciDevice* find(uint32_t slot, uint32_t function) const;
  loop::Result<void> place_bars(PciDevice& device);
  std::optional<uint8_t> free_slot() const;
  AddressBus& bus_of(const PciBar& bar);

  MmioBus& mmio_;
  PioBus& pio_;
  Options options_;
  bool is_ecam_added_ = false;
  Ecam ecam_{*this};
  ConfigPorts ports_{*this};
  GoneRegisters gone_;
  HostBridge bridge_;
  std::array<std::atomic<PciDevice*>, kSlotCount> slots_{};
  std::array<uint64_t, kSlotCount> last_added_{};  // 0: never. Main loop.
  uint64_t added_ = 0;
};

}  // namespace skiff::devices
