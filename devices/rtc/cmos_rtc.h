// SPDX-License-Identifier: GPL-2.0-or-later
// CmosRtc: the PC's clock and CMOS memory, a Motorola MC146818 (data sheet, 1984) at ports 0x70 and
// 0x71.
//
// The time of day is the host's plus an offset that the guest makes by setting its clock; it is
// computed when read and nothing ticks. A timer runs only while the guest has enabled an interrupt
// and has none pending. The time is UTC.
// Thread: ports from any vCPU thread; constructor, destructor and reset(): main loop.
// Ownership: borrows loop, clock and interrupt line.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "devices/core/byte_registers.h"
#include "devices/core/device.h"
#include "devices/core/irq_line.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/mutex.h"

namespace skiff::devices {

class CmosRtc final : public ByteRegisters, public Device {
 public:
  static constexpr uint16_t kBasePort = 0x70;
  static constexpr uint64_t kSizeBytes = 2;
  static constexpr uint32_t kIrq = 8;
  static constexpr uint8_t kCenturyIndex = 0x32;  // For the FADT.

  // What the BIOS of a PC leaves in the CMOS about memory.
  struct MemorySize {
    uint64_t below_4g_bytes = 0;
    uint64_t above_4g_bytes = 0;
  };
  // `wall_clock`: nanoseconds since 1970 UTC, see WallClock.
  CmosRtc(loop::EventLoop& loop, const loop::Clock& wall_clock, IrqLine& irq,
          const MemorySize& memory);

  std::string_view name() const override { return "cmos-rtc"; }
  // The clock, its setting and the CMOS memory stay: they have a battery.
  loop::Task<void> reset() override;

 private:
  uint8_t read_register(uint64_t offset) override;
  void write_register(uint64_t offset, uint8_t value) override;

  uint8_t read_cmos(uint8_t index) SKIFF_REQUIRES(mutex_);
  void write_cmos(uint8_t index, uint8_t value) SKIFF_REQUIRES(mutex_);
  void write_control(uint8_t value) SKIFF_REQUIRES(mutex_);
  void store_memory_size(const MemorySize& memory) SKIFF_REQUIRES(mutex_);

  int64_t guest_now_ns() const SKIFF_REQUIRES(mutex_);
  bool setting() const SKIFF_REQUIRES(mutex_);
  bool ticking() const SKIFF_REQUIRES(mutex_);
  int64_t period_ns() const SKIFF_REQUIRES(mutex_);
  void load_time() SKIFF_REQUIRES(mutex_);    // Clock to registers.
  void commit_time() SKIFF_REQUIRES(mutex_);  // Registers to clock.
  uint8_t encode(int64_t value) const SKIFF_REQUIRES(mutex_);
  std::optional<int> decode(uint8_t value) const SKIFF_REQUIRES(mutex_);
  uint8_t encode_hour(int64_t hour) const SKIFF_REQUIRES(mutex_);
  std::optional<int> decode_hour(uint8_t value) const SKIFF_REQUIRES(mutex_);
  bool alarm_matches(int64_t second_of_day) const SKIFF_REQUIRES(mutex_);

  void catch_up() SKIFF_REQUIRES(mutex_);  // Sets the flags of what has happened since last time.
  void update_irq() SKIFF_REQUIRES(mutex_);
  std::optional<int64_t> next_event_delay_ns() const SKIFF_REQUIRES(mutex_);
  void on_timer();

  const loop::Home home_;
  const loop::Clock& wall_clock_;
  IrqLine& irq_;
  loop::Timer timer_;
  loop::BottomHalf arm_bh_;

  loop::Mutex mutex_;  // Held while the line is set: the last level is the last state.
  std::array<uint8_t, 128> cmos_ SKIFF_GUARDED_BY(mutex_){};
  uint8_t index_ SKIFF_GUARDED_BY(mutex_) = 0;
  int64_t offset_ns_ SKIFF_GUARDED_BY(mutex_) = 0;  // Guest's time less the host's.
  int64_t seen_ns_ SKIFF_GUARDED_BY(mutex_) = 0;    // Guest's time at the last catch_up().
};

}  // namespace skiff::devices
