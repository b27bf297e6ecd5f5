// SPDX-License-Identifier: GPL-2.0-or-later
// Ports by which a guest that knows it is one talks to the VMM: its exit code, debug text, a panic.
// All three as in QEMU (docs/specs/pvpanic, hw/misc/debugexit, hw/char/debugcon).
//
// Thread: any vCPU thread; callbacks are called on the one that wrote, with no lock held.
// Ownership: borrows the CharPort.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "devices/chardev/char_port.h"
#include "devices/core/byte_registers.h"
#include "devices/core/device.h"

namespace skiff::devices {

// isa-debug-exit: a write of 1 to 4 bytes ends the run. What becomes of the value is the machine's.
class DebugExit final : public BusDevice, public Device {
 public:
  static constexpr uint16_t kDefaultPort = 0xf4;       // Where test kernels expect it.
  static constexpr uint16_t kQemuDefaultPort = 0x501;  // Where QEMU puts it unless told.
  static constexpr uint64_t kSizeBytes = 4;

  explicit DebugExit(std::function<void(uint32_t value)> on_exit) : on_exit_(std::move(on_exit)) {}

  void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
  void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  std::string_view name() const override { return "isa-debug-exit"; }
  loop::Task<void> reset() override;

 private:
  const std::function<void(uint32_t)> on_exit_;
};

// debugcon: text without a driver. The port has no way to say "wait", so what the host does not
// take in time is lost, and counted.
class DebugConsole final : public ByteRegisters, public Device {
 public:
  static constexpr uint16_t kDefaultPort = 0xe9;
  static constexpr uint64_t kSizeBytes = 1;

  explicit DebugConsole(CharPort& port) : port_(port) {}

  std::string_view name() const override { return "debugcon"; }
  loop::Task<void> reset() override;

 private:
  uint8_t read_register(uint64_t offset) override;
  void write_register(uint64_t offset, uint8_t value) override;

  CharPort& port_;  // Its refused_bytes are what was lost.
};

// pvpanic: the guest's kernel has panicked, or its crash kernel was loaded after a panic.
class PvPanic final : public ByteRegisters, public Device {
 public:
  static constexpr uint16_t kDefaultPort = 0x505;
  static constexpr uint64_t kSizeBytes = 1;
  enum class Event : uint8_t { kPanicked, kCrashLoaded };

  explicit PvPanic(std::function<void(Event event)> on_event) : on_event_(std::move(on_event)) {}

  std::string_view name() const override { return "pvpanic"; }
  loop::Task<void> reset() override;

 private:
  uint8_t read_register(uint64_t offset) override;
  void write_register(uint64_t offset, uint8_t value) override;

  const std::function<void(Event)> on_event_;
};

}  // namespace skiff::devices
