// SPDX-License-Identifier: GPL-2.0-or-later
// ResetPort: the reset control register at I/O port 0xcf9 (as in the PIIX and ICH bridges), the
// FADT's reset register.
//
// It lies within the dword at which PCI's configuration address is: byte accesses at 0xcf9 are
// ours, all others belong to the device behind. Put on the bus at kBasePort in its place, with
// its size.
// Thread: any vCPU thread; `on_reset` is called on the one that wrote, with no lock held.
// Ownership: borrows the device behind, which may be null.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "devices/core/bus.h"
#include "devices/core/device.h"

namespace skiff::devices {

class ResetPort final : public BusDevice, public Device {
 public:
  static constexpr uint16_t kBasePort = 0xcf8;
  static constexpr uint16_t kPort = 0xcf9;
  static constexpr uint8_t kResetValue = 0x06;  // What the FADT tells guests to write.

  ResetPort(std::function<void()> on_reset, BusDevice* behind)
      : on_reset_(std::move(on_reset)), behind_(behind) {}

  void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
  void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  std::string_view name() const override { return "reset-port"; }
  loop::Task<void> reset() override;

 private:
  const std::function<void()> on_reset_;
  BusDevice* const behind_;
  std::atomic<uint8_t> value_{0};
};

}  // namespace skiff::devices
