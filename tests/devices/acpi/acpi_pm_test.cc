// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/acpi/acpi_pm.h"

#include <gmock/gmock.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/core/bus.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/run_task.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kStatus = 0, kEnable = 2, kControl = 4, kTimer = 8, kGpeStatus = 12,
                   kGpeEnable = 14;
constexpr uint16_t kPowerButton = 0x100;
constexpr int64_t kSecondNs = 1'000'000'000;

class AcpiPmTest : public ::testing::Test {
 protected:
  uint64_t in(uint64_t offset, size_t size) { return in(pm_, offset, size); }
  static uint64_t in(AcpiPm& pm, uint64_t offset, size_t size) {
    std::array<uint8_t, 8> data{};
    pm.bus_read(offset, std::span(data).first(size));
    return load_le(std::span(data).first(size));
  }
  void out(uint64_t offset, size_t size, uint64_t value) {
    std::array<uint8_t, 8> data{};
    store_le(data, value);
    pm_.bus_write(offset, std::span(data).first(size));
    loop_.run_until_idle();
  }

  loop::ManualLoop loop_;
  FakeIrqLine sci_;
  int power_offs_ = 0;
  AcpiPm pm_{loop_, loop_.clock(), sci_, {.on_power_off = [this] { ++power_offs_; }}};
};

TEST_F(AcpiPmTest, SciIsAlwaysEnabled) {
  EXPECT_EQ(in(kControl, 2) & 1, 1u);
  out(kControl, 2, 0);
  EXPECT_EQ(in(kControl, 2) & 1, 1u);
}

TEST_F(AcpiPmTest, SleepEnableWithTheTypeOfS5PowersOffOnce) {
  out(kControl, 2, uint64_t{AcpiPm::kSleepTypeS5} << 10);  // ACPICA writes the type first.
  EXPECT_EQ(power_offs_, 0);
  out(kControl, 2, uint64_t{AcpiPm::kSleepTypeS5} << 10 | 1 << 13);
  EXPECT_EQ(power_offs_, 1);
  EXPECT_EQ(in(kControl, 2), (uint64_t{AcpiPm::kSleepTypeS5} << 10) | 1);  // SLP_EN reads as 0.
}

TEST_F(AcpiPmTest, OtherSleepTypesAndByteWritesOfTheLowHalfDoNotPowerOff) {
  for (uint64_t type = 0; type < 8; ++type)
    if (type != AcpiPm::kSleepTypeS5) out(kControl, 2, type << 10 | 1 << 13);
  out(kControl, 1, 0xff);
  EXPECT_EQ(power_offs_, 0);
  out(kControl + 1, 1, AcpiPm::kSleepTypeS5 << 2 | 1 << 5);
  EXPECT_EQ(power_offs_, 1);
}

TEST_F(AcpiPmTest, PowerButtonRaisesTheSciUntilItsStatusIsCleared) {
  EXPECT_FALSE(pm_.press_power_button());  // Nobody listens yet.
  EXPECT_FALSE(sci_.high());
  EXPECT_EQ(in(kStatus, 2), kPowerButton);
  out(kEnable, 2, kPowerButton);
  EXPECT_TRUE(sci_.high());
  out(kStatus, 2, ~uint64_t{kPowerButton} & 0xffff);
  EXPECT_TRUE(sci_.high());
  out(kStatus, 2, kPowerButton);
  EXPECT_FALSE(sci_.high());
  EXPECT_TRUE(pm_.press_power_button());
  EXPECT_TRUE(sci_.high());
  ASSERT_TRUE(run_task(pm_.reset()));
  EXPECT_FALSE(sci_.high());
  EXPECT_EQ(in(kStatus, 4), 0u);
}

TEST_F(AcpiPmTest, GeneralPurposeEventRaisesTheSciUntilItsStatusIsCleared) {
  pm_.raise_event(1);
  EXPECT_FALSE(sci_.high());  // Nobody listens yet.
  EXPECT_EQ(in(kGpeStatus, 1), 2u);
  out(kGpeEnable, 1, 2);
  EXPECT_TRUE(sci_.high());
  pm_.raise_event(9);
  out(kGpeStatus, 1, 2);
  EXPECT_FALSE(sci_.high());
  EXPECT_EQ(in(kGpeStatus, 2), 0x200u);
  out(kGpeEnable + 1, 1, 2);
  EXPECT_TRUE(sci_.high());
  EXPECT_EQ(in(kGpeEnable, 2), 0x202u);
  // Neither of the two clears the other's.
  out(kEnable, 2, kPowerButton);
  pm_.press_power_button();
  out(kGpeStatus, 2, 0x200);
  EXPECT_TRUE(sci_.high());
  ASSERT_TRUE(run_task(pm_.reset()));
  EXPECT_FALSE(sci_.high());
  EXPECT_EQ(in(kGpeStatus, 4), 0u);
}

TEST_F(AcpiPmTest, TimerRunsAtItsFrequencyForAHundredDays) {
  const uint64_t before = in(kTimer, 4);
  loop_.clock().advance_ns(kSecondNs);
  EXPECT_NEAR(static_cast<double>(in(kTimer, 4) - before), 3'579'545.0, 1.0);
  const uint64_t start = in(kTimer, 4);
  loop_.clock().advance_ns(8'640'000 * kSecondNs);
  EXPECT_EQ((in(kTimer, 4) - start) & 0xffffffff, 8'640'000 * 3'579'545ull & 0xffffffff);
}

TEST_F(AcpiPmTest, TimerOf24BitsWraps) {
  AcpiPm narrow(loop_, loop_.clock(), sci_, {.timer_width = AcpiPm::TimerWidth::k24Bits});
  for (int i = 0; i < 100; ++i) {
    loop_.clock().advance_ns(100'000'003);
    ASSERT_EQ(in(narrow, kTimer, 4) >> 24, 0u);
  }
}

TEST_F(AcpiPmTest, CarryInterruptsEachTimeTheTopBitChanges) {
  out(kEnable, 2, 1);
  EXPECT_FALSE(sci_.high());
  loop_.advance_ns(601 * kSecondNs);  // 2^31 ticks are 599.9 s.
  EXPECT_TRUE(sci_.high());
  out(kStatus, 2, 1);
  EXPECT_FALSE(sci_.high());
  loop_.advance_ns(600 * kSecondNs);
  EXPECT_TRUE(sci_.high());
}

TEST_F(AcpiPmTest, AnySizeAtAnyOffsetIsHarmless) {
  for (uint64_t offset = 0; offset < 20; ++offset)
    for (size_t size : {1u, 2u, 4u, 8u}) {
      in(offset, size);
      out(offset, size, 0);
    }
  EXPECT_EQ(power_offs_, 0);
}

}  // namespace
}  // namespace skiff::devices
