// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/rtc/cmos_rtc.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "devices/core/irq_line.h"
#include "devices/rtc/wall_clock.h"
#include "loop/clock.h"
#include "loop/event_loop.h"
#include "loop/log.h"
#include "loop/mutex.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

// Time of day and control (data sheet, figure 4); the century is the PC's addition.
constexpr uint8_t kSeconds = 0x00;
constexpr uint8_t kAlarmSeconds = 0x01;
constexpr uint8_t kMinutes = 0x02;
constexpr uint8_t kAlarmMinutes = 0x03;
constexpr uint8_t kHours = 0x04;
constexpr uint8_t kAlarmHours = 0x05;
constexpr uint8_t kWeekday = 0x06;
constexpr uint8_t kDay = 0x07;
constexpr uint8_t kMonth = 0x08;
constexpr uint8_t kYear = 0x09;
constexpr uint8_t kRegisterA = 0x0a;
constexpr uint8_t kRegisterB = 0x0b;
constexpr uint8_t kRegisterC = 0x0c;
constexpr uint8_t kRegisterD = 0x0d;

constexpr uint8_t kUpdateInProgress = 0x80;  // Register A.
constexpr uint8_t kDividerMask = 0x70;
constexpr uint8_t kDivider32KHz = 0x20;
constexpr uint8_t kRateMask = 0x0f;

constexpr uint8_t kSet = 0x80;  // Register B.
constexpr uint8_t kEventMask = 0x70;
constexpr uint8_t kPeriodic = 0x40;  // The same bits in registers B and C.
constexpr uint8_t kAlarm = 0x20;
constexpr uint8_t kUpdateEnded = 0x10;
constexpr uint8_t kSquareWave = 0x08;
constexpr uint8_t kBinary = 0x04;
constexpr uint8_t k24Hours = 0x02;

constexpr uint8_t kInterrupt = 0x80;  // Register C.
constexpr uint8_t kValidRam = 0x80;   // Register D.
constexpr uint8_t kAfternoon = 0x80;  // Hours, in the 12-hour format.
constexpr uint8_t kDontCare = 0xc0;   // Alarm bytes from here on match anything.

constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kSecondsPerDay = 86'400;
// UIP rises this long before the registers change (data sheet, "Update cycle").
constexpr int64_t kUpdateNoticeNs = 244'000;

bool is_time(uint8_t index) {
  return index == kSeconds || index == kMinutes || index == kHours ||
         (index >= kWeekday && index <= kYear) || index == CmosRtc::kCenturyIndex;
}

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

// Little-endian.
void store(std::span<uint8_t> cmos, size_t index, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) cmos[index + i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace

int64_t WallClock::now_ns() const {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since_1970).count();
}

CmosRtc::CmosRtc(loop::EventLoop& loop, const loop::Clock& wall_clock, IrqLine& irq,
                 const MemorySize& memory)
    : home_(loop),
      wall_clock_(wall_clock),
      irq_(irq),
      timer_(loop, loop::Priority::kDevice, [this] { on_timer(); }),
      arm_bh_(loop, loop::Priority::kDevice, [this] { on_timer(); }) {
  const loop::MutexLock lock(mutex_);
  cmos_[kRegisterA] = kDivider32KHz | 6;  // 1024 Hz, as a BIOS leaves it.
  cmos_[kRegisterB] = k24Hours;
  cmos_[kRegisterD] = kValidRam;
  store_memory_size(memory);
  seen_ns_ = guest_now_ns();
}

void CmosRtc::store_memory_size(const MemorySize& memory) {
  constexpr uint64_t kKiB = 1024;
  const auto beyond = [&memory](uint64_t start_bytes) {
    return memory.below_4g_bytes > start_bytes ? memory.below_4g_bytes - start_bytes : 0;
  };
  const uint64_t extended_kib = std::min<uint64_t>(beyond(1024 * kKiB) / kKiB, 0xffff);
  store(cmos_, 0x15, 640, 2);           // Base memory, KiB.
  store(cmos_, 0x17, extended_kib, 2);  // Above 1 MiB, KiB, at two places.
  store(cmos_, 0x30, extended_kib, 2);
  store(cmos_, 0x34, std::min<uint64_t>(beyond(16 * 1024 * kKiB) / (64 * kKiB), 0xffff), 2);
  store(cmos_, 0x5b, std::min<uint64_t>(memory.above_4g_bytes / (64 * kKiB), 0xffffff), 3);
}

loop::Task<void> CmosRtc::reset() {
  const loop::MutexLock lock(mutex_);
  // What the RESET pin clears (data sheet, "RESET").
  catch_up();
  cmos_[kRegisterB] &= static_cast<uint8_t>(~unsigned{kEventMask | kSquareWave});
  cmos_[kRegisterC] = 0;
  index_ = 0;
  update_irq();
  co_return;
}

uint8_t CmosRtc::read_register(uint64_t offset) {
  if (offset != 1) return 0xff;  // The index is write-only.
  uint8_t value = 0;
  {
    const loop::MutexLock lock(mutex_);
    value = read_cmos(index_);
    if (index_ != kRegisterC) return value;
  }
  arm_bh_.schedule();  // What was acknowledged may happen again.
  return value;
}

void CmosRtc::write_register(uint64_t offset, uint8_t value) {
  {
    const loop::MutexLock lock(mutex_);
    if (offset == 0) index_ = value & 0x7f;  // Bit 7 masks the NMI, of which there is none.
    if (offset != 1) return;
    write_cmos(index_, value);
  }
  arm_bh_.schedule();
}

uint8_t CmosRtc::read_cmos(uint8_t index) {
  if (is_time(index) && !setting()) load_time();
  if (index == kRegisterA) {
    const int64_t now = guest_now_ns();
    const int64_t into_second = now - floor_div(now, kNsPerSecond) * kNsPerSecond;
    const bool updating = ticking() && into_second >= kNsPerSecond - kUpdateNoticeNs;
    return static_cast<uint8_t>(cmos_[index] | (updating ? kUpdateInProgress : 0));
  }
  if (index == kRegisterC) {  // Reading clears it and takes the interrupt back.
    catch_up();
    const uint8_t flags = cmos_[index];
    cmos_[index] = 0;
    update_irq();
    return flags;
  }
  return cmos_[index];
}

void CmosRtc::write_cmos(uint8_t index, uint8_t value) {
  switch (index) {
    case kRegisterA:
      catch_up();
      cmos_[index] = value & 0x7f;
      return;
    case kRegisterB:
      return write_control(value);
    case kRegisterC:
    case kRegisterD:
      return;  // Read-only.
    default:
      break;
  }
  catch_up();
  if (!is_time(index) || setting()) {
    cmos_[index] = value;
    return;
  }
  // Not what the data sheet advises, but one register can be set while the clock runs.
  load_time();
  cmos_[index] = value;
  commit_time();
}

void CmosRtc::write_control(uint8_t value) {
  catch_up();
  const bool was_setting = setting();
  const bool now_setting = (value & kSet) != 0;
  if (!was_setting && now_setting) load_time();
  // SET also clears the update-ended enable (data sheet, register B).
  cmos_[kRegisterB] = static_cast<uint8_t>(now_setting ? value & ~unsigned{kUpdateEnded} : value);
  if (was_setting && !now_setting) commit_time();
  update_irq();
}

int64_t CmosRtc::guest_now_ns() const { return wall_clock_.now_ns() + offset_ns_; }
bool CmosRtc::setting() const { return (cmos_[kRegisterB] & kSet) != 0; }

bool CmosRtc::ticking() const {
  return !setting() && (cmos_[kRegisterA] & kDividerMask) == kDivider32KHz;
}

// Data sheet, table 5, for the 32.768 kHz crystal. 0: no periodic event.
int64_t CmosRtc::period_ns() const {
  const int rate = cmos_[kRegisterA] & kRateMask;
  if (rate == 0 || (cmos_[kRegisterA] & kDividerMask) != kDivider32KHz) return 0;
  const int shift = rate < 3 ? rate + 6 : rate - 1;
  return (kNsPerSecond << shift) / 32'768;
}

uint8_t CmosRtc::encode(int64_t value) const {
  if ((cmos_[kRegisterB] & kBinary) != 0) return static_cast<uint8_t>(value);
  return static_cast<uint8_t>((value / 10 << 4) | value % 10);
}

std::optional<int> CmosRtc::decode(uint8_t value) const {
  if ((cmos_[kRegisterB] & kBinary) != 0) return value;
  if ((value & 0x0f) > 9 || value >> 4 > 9) return std::nullopt;
  return (value >> 4) * 10 + (value & 0x0f);
}

uint8_t CmosRtc::encode_hour(int64_t hour) const {
  if ((cmos_[kRegisterB] & k24Hours) != 0) return encode(hour);
  const int64_t on_dial = hour % 12 == 0 ? 12 : hour % 12;
  return static_cast<uint8_t>(encode(on_dial) | (hour >= 12 ? kAfternoon : 0));
}

std::optional<int> CmosRtc::decode_hour(uint8_t value) const {
  if ((cmos_[kRegisterB] & k24Hours) != 0) return decode(value);
  const std::optional<int> on_dial = decode(value & 0x7f);
  if (!on_dial || *on_dial < 1 || *on_dial > 12) return std::nullopt;
  return *on_dial % 12 + ((value & kAfternoon) != 0 ? 12 : 0);
}

void CmosRtc::load_time() {
  using namespace std::chrono;
  const int64_t now_s = floor_div(guest_now_ns(), kNsPerSecond);
  const int64_t day_number = floor_div(now_s, kSecondsPerDay);
  const int64_t second = now_s - day_number * kSecondsPerDay;
  const sys_days day_point{days(day_number)};
  const year_month_day date(day_point);
  const int year_number = int{date.year()};
  cmos_[kSeconds] = encode(second % 60);
  cmos_[kMinutes] = encode(second / 60 % 60);
  cmos_[kHours] = encode_hour(second / 3600);
  cmos_[kWeekday] = encode(weekday(day_point).c_encoding() + 1);  // Sunday is 1.
  cmos_[kDay] = encode(unsigned{date.day()});
  cmos_[kMonth] = encode(unsigned{date.month()});
  cmos_[kYear] = encode(year_number % 100);
  cmos_[kCenturyIndex] = encode(year_number / 100);
}

void CmosRtc::commit_time() {
  using namespace std::chrono;
  const auto second = decode(cmos_[kSeconds]);
  const auto minute = decode(cmos_[kMinutes]);
  const auto hour = decode_hour(cmos_[kHours]);
  const auto day_of_month = decode(cmos_[kDay]);
  const auto month_number = decode(cmos_[kMonth]);
  const auto year_number = decode(cmos_[kYear]);
  const auto century = decode(cmos_[kCenturyIndex]);
  const bool digits = second && minute && hour && day_of_month && month_number && year_number;
  // Two centuries around us: 64-bit nanoseconds reach no further than 292 years.
  if (!digits || !century || *second > 59 || *minute > 59 || *hour > 23 || *day_of_month < 1 ||
      *day_of_month > 31 || *month_number < 1 || *month_number > 12 || *year_number > 99 ||
      *century < 19 || *century > 21) {
    SKIFF_LOG_LIMITED(kInfo, "The guest's clock cannot be set to what it asked for, ignored");
    return;
  }
  // The 31st of a short month runs on into the next, as registers set one by one need it.
  const year_month_day first(year(*century * 100 + *year_number),
                             month(static_cast<unsigned>(*month_number)), day(1));
  const int64_t day_number = sys_days(first).time_since_epoch().count() + *day_of_month - 1;
  const int64_t wanted_s =
      day_number * kSecondsPerDay + int64_t{*hour} * 3600 + int64_t{*minute} * 60 + *second;
  const int64_t host_s = floor_div(wall_clock_.now_ns(), kNsPerSecond);
  offset_ns_ = (wanted_s - host_s) * kNsPerSecond;
  seen_ns_ = guest_now_ns();
}

bool CmosRtc::alarm_matches(int64_t second_of_day) const {
  const auto matches = [](uint8_t alarm, uint8_t now) {
    return alarm >= kDontCare || alarm == now;
  };
  return matches(cmos_[kAlarmSeconds], encode(second_of_day % 60)) &&
         matches(cmos_[kAlarmMinutes], encode(second_of_day / 60 % 60)) &&
         matches(cmos_[kAlarmHours], encode_hour(second_of_day / 3600));
}

void CmosRtc::catch_up() {
  const int64_t before_ns = std::exchange(seen_ns_, guest_now_ns());
  if (seen_ns_ <= before_ns) return;  // Nothing, or the host's clock was set back.
  unsigned flags = cmos_[kRegisterC];
  const int64_t period = period_ns();
  if (period > 0 && floor_div(seen_ns_, period) != floor_div(before_ns, period)) flags |= kPeriodic;
  if (ticking()) {
    const int64_t now_s = floor_div(seen_ns_, kNsPerSecond);
    const int64_t before_s = floor_div(before_ns, kNsPerSecond);
    if (now_s != before_s) flags |= kUpdateEnded;
    const int64_t passed = std::min(now_s - before_s, kSecondsPerDay);
    for (int64_t i = 0; i < passed && (flags & kAlarm) == 0; ++i) {
      const int64_t second = now_s - i;
      if (alarm_matches(second - floor_div(second, kSecondsPerDay) * kSecondsPerDay))
        flags |= kAlarm;
    }
  }
  cmos_[kRegisterC] = static_cast<uint8_t>(flags);
  update_irq();
}

void CmosRtc::update_irq() {
  const bool high = (cmos_[kRegisterB] & cmos_[kRegisterC] & kEventMask) != 0;
  cmos_[kRegisterC] =
      static_cast<uint8_t>((cmos_[kRegisterC] & kEventMask) | (high ? kInterrupt : 0));
  irq_.set_level(high);
}

std::optional<int64_t> CmosRtc::next_event_delay_ns() const {
  const uint8_t enabled = cmos_[kRegisterB];
  // While one is pending another changes nothing; reading register C starts the timer again.
  if ((cmos_[kRegisterC] & kInterrupt) != 0) return std::nullopt;
  std::optional<int64_t> delay;
  const auto sooner = [&delay, seen_ns = seen_ns_](int64_t step_ns) {
    const int64_t to_next = (floor_div(seen_ns, step_ns) + 1) * step_ns - seen_ns;
    if (!delay || to_next < *delay) delay = to_next;
  };
  if ((enabled & kPeriodic) != 0 && period_ns() > 0) sooner(period_ns());
  if ((enabled & (kUpdateEnded | kAlarm)) != 0 && ticking()) sooner(kNsPerSecond);
  return delay;
}

void CmosRtc::on_timer() {
  home_.assert_here();
  std::optional<int64_t> delay;
  {
    const loop::MutexLock lock(mutex_);
    catch_up();
    delay = next_event_delay_ns();
  }
  if (delay) {
    timer_.arm_after(*delay);
  } else {
    timer_.cancel();
  }
}

}  // namespace skiff::devices
