// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/acpi/acpi_pm.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "devices/core/irq_line.h"
#include "loop/check.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

// PM1 status and enable (tables 4.11 and 4.12).
constexpr uint16_t kTimerStatus = 1 << 0;
constexpr uint16_t kPowerButton = 1 << 8;
constexpr uint16_t kStatusMask = 0x8731;  // Timer, bus master, global, buttons, RTC, wake.
constexpr uint16_t kEnableMask = 0x0721;

// PM1 control (table 4.13). SLP_EN reads as 0.
constexpr uint16_t kSciEnable = 1 << 0;
constexpr uint16_t kControlStored = 0x1c02;  // BM_RLD and SLP_TYP.
constexpr uint8_t kSleepEnableHigh = 1 << 5;

constexpr uint64_t kNsPerSecond = 1'000'000'000;

constexpr uint8_t high(uint16_t value) { return static_cast<uint8_t>(value >> 8); }
constexpr uint8_t low(uint16_t value) { return static_cast<uint8_t>(value & 0xff); }
constexpr uint16_t with_byte(uint16_t value, bool high_byte, uint8_t byte) {
  return static_cast<uint16_t>(high_byte ? (value & 0x00ff) | (byte << 8)
                                         : (value & 0xff00) | byte);
}

}  // namespace

AcpiPm::AcpiPm(loop::EventLoop& loop, const loop::Clock& clock, IrqLine& sci, Options options)
    : home_(loop),
      clock_(clock),
      sci_(sci),
      carry_bit_(static_cast<uint32_t>(options.timer_width) - 1),
      on_power_off_(std::move(options.on_power_off)),
      carry_timer_(loop, loop::Priority::kDevice, [this] { on_timer(); }),
      arm_bh_(loop, loop::Priority::kDevice, [this] { on_timer(); }) {
  const loop::MutexLock lock(mutex_);
  carries_ = ticks() >> carry_bit_;
}

uint64_t AcpiPm::ticks() const {
  const auto now_ns = static_cast<uint64_t>(clock_.now_ns());
  // In two parts: the product of all of it would overflow within the hour.
  return now_ns / kNsPerSecond * kTimerHz + now_ns % kNsPerSecond * kTimerHz / kNsPerSecond;
}

bool AcpiPm::press_power_button() {
  const loop::MutexLock lock(mutex_);
  status_ |= kPowerButton;
  update_sci();
  return (enable_ & kPowerButton) != 0;
}

void AcpiPm::raise_event(uint8_t number) {
  SKIFF_CHECK(number < kGpeCount);
  const loop::MutexLock lock(mutex_);
  gpe_status_ |= static_cast<uint16_t>(1u << number);
  update_sci();
}

void AcpiPm::bus_read(uint64_t offset_bytes, std::span<uint8_t> data) {
  const loop::MutexLock lock(mutex_);
  const uint64_t mask = (uint64_t{2} << carry_bit_) - 1;
  const auto timer_value = static_cast<uint32_t>(ticks() & mask);  // Once, for all its bytes.
  note_timer_carry();
  for (size_t i = 0; i < data.size(); ++i) data[i] = read_byte(offset_bytes + i, timer_value);
}

uint8_t AcpiPm::read_byte(uint64_t offset, uint32_t timer_value) {
  switch (offset) {
    case 0:
      return low(status_);
    case 1:
      return high(status_);
    case 2:
      return low(enable_);
    case 3:
      return high(enable_);
    case 4:
      return low(control_) | kSciEnable;
    case 5:
      return high(control_);
    case 8:
    case 9:
    case 10:
    case 11:
      return static_cast<uint8_t>(timer_value >> (8 * (offset - 8)));
    case 12:
      return low(gpe_status_);
    case 13:
      return high(gpe_status_);
    case 14:
      return low(gpe_enable_);
    case 15:
      return high(gpe_enable_);
    default:
      return 0;  // Reserved ports of the block.
  }
}

void AcpiPm::bus_write(uint64_t offset_bytes, std::span<const uint8_t> data) {
  bool power_off = false;
  {
    const loop::MutexLock lock(mutex_);
    note_timer_carry();
    for (size_t i = 0; i < data.size(); ++i)
      if (write_byte(offset_bytes + i, data[i])) power_off = true;
    update_sci();
  }
  arm_bh_.schedule();
  if (power_off && on_power_off_) on_power_off_();
}

bool AcpiPm::write_byte(uint64_t offset, uint8_t value) {
  const bool high_byte = (offset & 1) != 0;
  switch (offset) {
    case 0:
    case 1:  // Writing a one clears it.
      status_ &= static_cast<uint16_t>(~with_byte(0, high_byte, value));
      return false;
    case 2:
    case 3:
      enable_ = with_byte(enable_, high_byte, value) & kEnableMask;
      return false;
    case 4:
      control_ = with_byte(control_, false, value) & kControlStored;
      return false;
    case 5:
      return write_control_high(value);
    case 12:
    case 13:  // As in PM1 status (4.8.4.1).
      gpe_status_ &= static_cast<uint16_t>(~with_byte(0, high_byte, value));
      return false;
    case 14:
    case 15:
      gpe_enable_ = with_byte(gpe_enable_, high_byte, value);
      return false;
    default:  // The timer counts on, whatever is written.
      return false;
  }
}

bool AcpiPm::write_control_high(uint8_t value) {
  control_ = with_byte(control_, true, value) & kControlStored;
  if ((value & kSleepEnableHigh) == 0) return false;
  const unsigned type = (value >> 2) & 7u;
  if (type == kSleepTypeS5) return true;
  SKIFF_LOG_LIMITED(kWarn, "The guest asks for a sleep state that it was not offered, type {}",
                    type);
  return false;
}

// TMR_STS is set whenever the timer's highest bit changes (4.8.3.1.1).
void AcpiPm::note_timer_carry() {
  const uint64_t carries = ticks() >> carry_bit_;
  if (carries != carries_) status_ |= kTimerStatus;
  carries_ = carries;
}

void AcpiPm::update_sci() {
  sci_.set_level((status_ & enable_ & kStatusMask) != 0 || (gpe_status_ & gpe_enable_) != 0);
}

void AcpiPm::on_timer() {
  home_.assert_here();
  uint64_t delay_ticks = 0;
  {
    const loop::MutexLock lock(mutex_);
    note_timer_carry();
    update_sci();
    // Nobody waits for it, or it is already signalled.
    if ((enable_ & ~unsigned{status_} & kTimerStatus) == 0) return carry_timer_.cancel();
    delay_ticks = ((carries_ + 1) << carry_bit_) - ticks();
  }
  // One tick later than computed: rounding must not wake us just before.
  carry_timer_.arm_after(static_cast<int64_t>((delay_ticks + 1) * kNsPerSecond / kTimerHz));
}

loop::Task<void> AcpiPm::reset() {
  const loop::MutexLock lock(mutex_);
  status_ = enable_ = control_ = 0;
  gpe_status_ = gpe_enable_ = 0;
  update_sci();
  co_return;
}

}  // namespace skiff::devices
