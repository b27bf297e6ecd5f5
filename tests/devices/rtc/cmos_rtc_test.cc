// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/rtc/cmos_rtc.h"

#include <gmock/gmock.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "devices/rtc/wall_clock.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/run_task.h"
#include "loop/clock.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr uint8_t kA = 0x0a, kB = 0x0b, kC = 0x0c;
// 2024-02-28 23:59:50 UTC, a Wednesday before a leap day.
constexpr int64_t kEpoch = 1'709'164'790;

// Time of day that moves with the loop's clock, which starts at one second.
class ShiftedClock final : public loop::Clock {
 public:
  explicit ShiftedClock(const loop::Clock& base) : base_(base) {}
  int64_t now_ns() const override { return base_.now_ns() + (kEpoch - 1) * kSecondNs; }

 private:
  const loop::Clock& base_;
};

class CmosRtcTest : public ::testing::Test {
 protected:
  uint8_t get(uint8_t index) {
    uint8_t value = index;
    rtc_.bus_write(0, std::span(&value, 1));
    rtc_.bus_read(1, std::span(&value, 1));
    loop_.run_until_idle();
    return value;
  }
  void set(uint8_t index, uint8_t value) {
    const std::array<uint8_t, 2> both = {index, value};  // One 16-bit write does it, too.
    rtc_.bus_write(0, both);
    loop_.run_until_idle();
  }
  // Century, year, month, day, weekday, hour, minute, second, in hexadecimal.
  std::string time() {
    std::string text;
    for (const uint8_t index : std::to_array<uint8_t>({0x32, 9, 8, 7, 6, 4, 2, 0})) {
      constexpr char kDigits[] = "0123456789abcdef";
      const uint8_t value = get(index);
      if (!text.empty()) text += ' ';
      text += kDigits[value >> 4];
      text += kDigits[value & 15];
    }
    return text;
  }
  void set_time(const std::map<uint8_t, uint8_t>& registers) {
    const uint8_t b = get(kB);
    set(kB, b | 0x80);
    for (const auto& [index, value] : registers) set(index, value);
    set(kB, b);
  }

  loop::ManualLoop loop_;
  ShiftedClock wall_{loop_.clock()};
  FakeIrqLine irq_;
  CmosRtc rtc_{loop_,
               wall_,
               irq_,
               {.below_4g_bytes = uint64_t{3} << 30, .above_4g_bytes = uint64_t{5} << 30}};
};

TEST_F(CmosRtcTest, TimeOfDayIsTheHostsInBcd) {
  EXPECT_EQ(time(), "20 24 02 28 04 23 59 50");
  loop_.advance_ns(10 * kSecondNs);
  EXPECT_EQ(time(), "20 24 02 29 05 00 00 00");
}

TEST_F(CmosRtcTest, BinaryAndTwelveHourFormatsAreHonoured) {
  set(kB, 0x06);
  EXPECT_EQ(time(), "14 18 02 1c 04 17 3b 32");
  set(kB, 0x00);
  EXPECT_EQ(get(4), 0x91);  // 11 p.m.
  loop_.advance_ns(10 * kSecondNs);
  EXPECT_EQ(get(4), 0x12);  // Midnight.
  loop_.advance_ns(12 * 3600 * kSecondNs);
  EXPECT_EQ(get(4), 0x92);  // Noon.
}

TEST_F(CmosRtcTest, GuestSetsItsClockAndItRunsOnFromThere) {
  set_time({{0x32, 0x19}, {9, 0x99}, {8, 0x12}, {7, 0x31}, {4, 0x23}, {2, 0x59}, {0, 0x58}});
  EXPECT_EQ(time(), "19 99 12 31 06 23 59 58");
  loop_.advance_ns(2 * kSecondNs);
  EXPECT_EQ(time(), "20 00 01 01 07 00 00 00");
  ASSERT_TRUE(run_task(rtc_.reset()));
  EXPECT_EQ(time(), "20 00 01 01 07 00 00 00");  // It has a battery.
}

TEST_F(CmosRtcTest, RegistersStandStillWhileTheClockIsSet) {
  set(kB, 0x82);
  loop_.advance_ns(30 * kSecondNs);
  EXPECT_EQ(time(), "20 24 02 28 04 23 59 50");
}

TEST_F(CmosRtcTest, ImpossibleDatesAreIgnored) {
  const std::string before = time();
  set_time({{8, 0x13}});
  set_time({{0, 0x6f}});
  set_time({{4, 0x24}});
  set_time({{7, 0x00}});
  set_time({{0x32, 0x99}});
  set_time({{0x32, 0x00}});
  EXPECT_EQ(time(), before);
}

TEST_F(CmosRtcTest, UpdateIsAnnouncedShortlyBeforeTheSecondEnds) {
  EXPECT_EQ(get(kA) & 0x80, 0);
  loop_.advance_ns(kSecondNs - 300'000);
  EXPECT_EQ(get(kA) & 0x80, 0);
  loop_.advance_ns(100'000);
  EXPECT_EQ(get(kA) & 0x80, 0x80);
  loop_.advance_ns(200'000);
  EXPECT_EQ(get(kA) & 0x80, 0);
  set(kB, 0x82);
  loop_.advance_ns(kSecondNs - 100'000);
  EXPECT_EQ(get(kA) & 0x80, 0);  // No update while the clock is set.
}

TEST_F(CmosRtcTest, UpdateEndedInterruptsOncePerSecondWhenAcknowledged) {
  set(kB, 0x12);
  for (uint32_t i = 1; i <= 3; ++i) {
    loop_.advance_ns(kSecondNs);
    EXPECT_TRUE(irq_.high());
    EXPECT_EQ(irq_.rising_edges(), i);
    loop_.advance_ns(5 * kSecondNs);  // Not acknowledged: no more of them.
    EXPECT_EQ(irq_.rising_edges(), i);
    EXPECT_EQ(get(kC) & 0x90, 0x90);
    EXPECT_FALSE(irq_.high());
    EXPECT_EQ(get(kC), 0);
  }
}

TEST_F(CmosRtcTest, PeriodicInterruptComesAtItsRate) {
  set(kA, 0x26);  // 1024 Hz
  set(kB, 0x42);
  int ticks = 0;
  for (int i = 0; i < 10'000; ++i) {
    loop_.advance_ns(100'000);
    if (!irq_.high()) continue;
    ++ticks;
    EXPECT_EQ(get(kC) & 0xc0, 0xc0);
  }
  EXPECT_NEAR(ticks, 1024, 2);
}

TEST_F(CmosRtcTest, FlagsAreSetWithoutTheirInterrupts) {
  loop_.advance_ns(kSecondNs);
  EXPECT_EQ(get(kC), 0x50);
  EXPECT_EQ(irq_.rising_edges(), 0u);
}

TEST_F(CmosRtcTest, AlarmInterruptsAtItsTimeOnly) {
  set(1, 0x05);
  set(3, 0x00);
  set(5, 0xc0);  // Any hour.
  set(kB, 0x22);
  for (int i = 0; i < 14; ++i) loop_.advance_ns(kSecondNs);
  EXPECT_FALSE(irq_.high());
  loop_.advance_ns(kSecondNs);
  EXPECT_TRUE(irq_.high());
  EXPECT_EQ(get(kC) & 0xa0, 0xa0);
}

TEST_F(CmosRtcTest, ResetTakesTheInterruptBack) {
  set(kB, 0x12);
  loop_.advance_ns(kSecondNs);
  ASSERT_TRUE(irq_.high());
  ASSERT_TRUE(run_task(rtc_.reset()));
  EXPECT_FALSE(irq_.high());
  loop_.advance_ns(2 * kSecondNs);
  EXPECT_FALSE(irq_.high());
}

TEST_F(CmosRtcTest, MemorySizesAreWhereABiosPutsThem) {
  EXPECT_EQ(get(0x15) | get(0x16) << 8, 640);
  EXPECT_EQ(get(0x30) | get(0x31) << 8, 0xffff);
  EXPECT_EQ(get(0x34) | get(0x35) << 8, (3072 - 16) * 16);
  EXPECT_EQ(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5 * 1024 * 16);
}

TEST_F(CmosRtcTest, MemoryKeepsItsBytesAndTheBatteryIsGood) {
  set(0x0f, 0x0a);
  set(0x7f, 0x55);
  ASSERT_TRUE(run_task(rtc_.reset()));
  EXPECT_EQ(get(0x0f), 0x0a);
  EXPECT_EQ(get(0xff), 0x55);  // The top bit of the index is the NMI mask.
  set(0x0d, 0);
  EXPECT_EQ(get(0x0d), 0x80);
}

TEST(WallClockTest, IsAfterThisWasWritten) { EXPECT_GT(WallClock().now_ns(), kEpoch * kSecondNs); }

}  // namespace
}  // namespace skiff::devices
