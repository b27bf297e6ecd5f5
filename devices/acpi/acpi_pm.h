// SPDX-License-Identifier: GPL-2.0-or-later
// AcpiPm: ACPI's fixed hardware: PM1 event and control blocks, the power management timer (ACPI
// 6.4, section 4.8.3) and the block of general-purpose events (4.8.4). One range of I/O ports:
//   0x600  PM1 status (2 bytes), PM1 enable (2)
//   0x604  PM1 control (2)
//   0x608  PM timer (4)
//   0x60c  GPE0 status (2), GPE0 enable (2)
// SCI_EN is always set: there is no SMI and no ACPI enable handshake.
// Thread: registers, press_power_button() and raise_event() from any; constructor, destructor and
// reset(): main loop. `on_power_off` is called on the vCPU thread that wrote, with no lock held.
// Ownership: borrows loop, clock and interrupt line.
#pragma once

#include <cstdint>
#include <functional>

#include "devices/core/byte_registers.h"
#include "devices/core/device.h"
#include "devices/core/irq_line.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/mutex.h"

namespace skiff::devices {

class AcpiPm final : public BusDevice, public Device {
 public:
  static constexpr uint16_t kBasePort = 0x600;
  static constexpr uint64_t kSizeBytes = 16;
  // Where the FADT finds the blocks.
  static constexpr uint16_t kEventPort = kBasePort;
  static constexpr uint16_t kControlPort = kBasePort + 4;
  static constexpr uint16_t kTimerPort = kBasePort + 8;
  static constexpr uint16_t kGpePort = kBasePort + 12;
  static constexpr uint8_t kGpeCount = 16;
  static constexpr uint32_t kSciIrq = 9;  // Level-triggered, active high.
  // SLP_TYP of S5, as \_S5 in the DSDT says. No other sleep state is offered.
  static constexpr uint8_t kSleepTypeS5 = 5;

  static constexpr uint64_t kTimerHz = 3'579'545;
  enum class TimerWidth : uint8_t { k24Bits = 24, k32Bits = 32 };  // 32: TMR_VAL_EXT in the FADT.

  struct Options {
    TimerWidth timer_width = TimerWidth::k32Bits;
    std::function<void()> on_power_off;
  };
  AcpiPm(loop::EventLoop& loop, const loop::Clock& clock, IrqLine& sci, Options options);

  // True if the guest has asked to be told; otherwise the press waits in PM1 status.
  bool press_power_button();
  // General-purpose event `number`, below kGpeCount, has happened: the guest runs its method.
  void raise_event(uint8_t number);

  void bus_read(uint64_t offset_bytes, std::span<uint8_t> data) override;
  void bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) override;
  std::string_view name() const override { return "acpi-pm"; }
  loop::Task<void> reset() override;

 private:
  uint64_t ticks() const;
  uint8_t read_byte(uint64_t offset, uint32_t timer_value) SKIFF_REQUIRES(mutex_);
  // True when the guest asks for power-off.
  bool write_byte(uint64_t offset, uint8_t value) SKIFF_REQUIRES(mutex_);
  bool write_control_high(uint8_t value) SKIFF_REQUIRES(mutex_);
  void note_timer_carry() SKIFF_REQUIRES(mutex_);
  void update_sci() SKIFF_REQUIRES(mutex_);
  void on_timer();

  const loop::Home home_;
  const loop::Clock& clock_;
  IrqLine& sci_;
  const uint32_t carry_bit_;
  const std::function<void()> on_power_off_;
  loop::Timer carry_timer_;
  loop::BottomHalf arm_bh_;

  loop::Mutex mutex_;  // Held while the line is set: the last level is the last state.
  uint16_t status_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint16_t enable_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint16_t control_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint16_t gpe_status_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint16_t gpe_enable_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint64_t carries_ SKIFF_GUARDED_BY(mutex_) = 0;
};

}  // namespace skiff::devices
