// SPDX-License-Identifier: GPL-2.0-or-later
// I8042: the PC's keyboard controller without a keyboard: enough for drivers to probe it, for the
// A20 gate, and for the reset that many guests reboot with (IBM PC/AT Technical Reference, 1985,
// "Keyboard controller").
//
// Thread: ports from any vCPU thread; `on_reset` is called on the vCPU thread that wrote, with no
// lock held.
// Ownership: borrows the interrupt line.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "devices/core/byte_registers.h"
#include "devices/core/device.h"
#include "devices/core/irq_line.h"
#include "loop/mutex.h"

namespace skiff::devices {

class I8042 final : public Device {
 public:
  static constexpr uint16_t kDataPort = 0x60;
  static constexpr uint16_t kCommandPort = 0x64;
  static constexpr uint32_t kIrq = 1;

  I8042(IrqLine& irq, std::function<void()> on_reset);

  // One byte each; the ports between them are not ours.
  BusDevice& data_port() { return data_port_; }
  BusDevice& command_port() { return command_port_; }

  std::string_view name() const override { return "i8042"; }
  loop::Task<void> reset() override;
  // As the guest set it; our guests' memory is never masked.
  bool a20_enabled() const;

 private:
  class Port final : public ByteRegisters {
   public:
    Port(I8042& chip, bool command) : chip_(chip), command_(command) {}

   private:
    uint8_t read_register(uint64_t offset) override;
    void write_register(uint64_t offset, uint8_t value) override;
    I8042& chip_;
    const bool command_;
  };

  enum class Source : uint8_t { kController, kKeyboardTimeout, kAuxTimeout };

  uint8_t read_data();
  uint8_t read_status();
  void write_data(uint8_t value);
  void write_command(uint8_t command);
  void execute(uint8_t command) SKIFF_REQUIRES(mutex_);
  // True when the machine is to be reset.
  bool write_parameter(uint8_t command, uint8_t value) SKIFF_REQUIRES(mutex_);
  void answer(uint8_t value, Source source = Source::kController) SKIFF_REQUIRES(mutex_);
  void power_on() SKIFF_REQUIRES(mutex_);
  void update_irq() SKIFF_REQUIRES(mutex_);

  IrqLine& irq_;
  const std::function<void()> on_reset_;
  Port data_port_{*this, false};
  Port command_port_{*this, true};

  mutable loop::Mutex mutex_;  // Held while the line is set: the last level is the last state.
  uint8_t config_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t output_port_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t output_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t status_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t parameter_of_ SKIFF_GUARDED_BY(mutex_) = 0;  // Command that waits for its byte.
};

}  // namespace skiff::devices
