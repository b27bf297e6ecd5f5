// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/i8042/i8042.h"

#include <gmock/gmock.h>

#include <array>
#include <cstdint>
#include <span>

#include "devices/core/bus.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/run_task.h"

namespace skiff::devices {
namespace {

class I8042Test : public ::testing::Test {
 protected:
  static uint8_t in(BusDevice& port) {
    uint8_t value = 0;
    port.bus_read(0, std::span(&value, 1));
    return value;
  }
  static void out(BusDevice& port, uint8_t value) { port.bus_write(0, std::span(&value, 1)); }
  void command(uint8_t value) { out(chip_.command_port(), value); }
  void data(uint8_t value) { out(chip_.data_port(), value); }
  uint8_t status() { return in(chip_.command_port()); }
  uint8_t answer() { return in(chip_.data_port()); }

  FakeIrqLine irq_;
  int resets_ = 0;
  I8042 chip_{irq_, [this] { ++resets_; }};
};

TEST_F(I8042Test, SelfTestAndKeyboardPortTestPass) {
  EXPECT_EQ(status() & 0x05, 0x04);
  command(0xaa);
  EXPECT_EQ(status() & 0x01, 0x01);
  EXPECT_EQ(answer(), 0x55);
  EXPECT_EQ(status() & 0x01, 0);
  command(0xab);
  EXPECT_EQ(answer(), 0x00);
}

TEST_F(I8042Test, LinuxFindsNoAuxPort) {  // i8042_check_aux()
  command(0xd3);
  data(0x5a);
  EXPECT_EQ(status() & 0x20, 0);  // Echoed, but not from the aux port.
  EXPECT_EQ(answer(), 0x5a);
  command(0xa9);
  EXPECT_EQ(answer(), 0x01);
}

TEST_F(I8042Test, ConfigurationByteReadsBackAndGatesTheInterrupt) {
  command(0x60);
  data(0x45);
  command(0x20);
  EXPECT_TRUE(irq_.high());
  EXPECT_EQ(answer(), 0x45);
  EXPECT_FALSE(irq_.high());
  command(0xad);  // Keyboard off.
  command(0xaa);
  EXPECT_FALSE(irq_.high());
  command(0xae);
  EXPECT_TRUE(irq_.high());
  answer();
  command(0x60);
  data(0x04);
  command(0xaa);
  EXPECT_FALSE(irq_.high());
}

TEST_F(I8042Test, MissingKeyboardAnswersWithATimeout) {
  data(0xf2);
  EXPECT_EQ(status() & 0x41, 0x41);
  EXPECT_EQ(answer(), 0xfe);
  EXPECT_EQ(status() & 0x41, 0);
  command(0xd4);
  data(0xff);
  EXPECT_EQ(status() & 0x61, 0x61);
  EXPECT_FALSE(irq_.high());
  EXPECT_EQ(answer(), 0xfe);
}

TEST_F(I8042Test, A20GateFollowsTheOutputPort) {
  EXPECT_TRUE(chip_.a20_enabled());
  command(0xd1);
  data(0x01);
  EXPECT_FALSE(chip_.a20_enabled());
  command(0xdf);
  EXPECT_TRUE(chip_.a20_enabled());
  command(0xd0);
  EXPECT_EQ(answer() & 0x03, 0x03);
  EXPECT_EQ(resets_, 0);
}

TEST_F(I8042Test, PulseOfLineZeroResetsAndOthersDoNot) {
  command(0xff);
  command(0xfd);
  EXPECT_EQ(resets_, 0);
  command(0xfe);
  EXPECT_EQ(resets_, 1);
  command(0xf0);
  EXPECT_EQ(resets_, 2);
}

TEST_F(I8042Test, OutputPortWithoutTheResetBitResets) {
  command(0xd1);
  data(0x02);
  EXPECT_EQ(resets_, 1);
}

TEST_F(I8042Test, WideAccessTouchesOnlyTheFirstByte) {
  const std::array<uint8_t, 4> wide = {0xaa, 0xfe, 0xfe, 0xfe};
  chip_.command_port().bus_write(0, wide);
  EXPECT_EQ(resets_, 0);
  std::array<uint8_t, 4> read{};
  chip_.data_port().bus_read(0, read);
  EXPECT_THAT(read, ::testing::ElementsAre(0x55, 0xff, 0xff, 0xff));
}

TEST_F(I8042Test, ResetForgetsAHalfGivenCommand) {
  command(0x60);
  ASSERT_TRUE(run_task(chip_.reset()));
  data(0x01);  // To the keyboard, not the configuration.
  EXPECT_EQ(answer(), 0xfe);
  command(0x20);
  EXPECT_EQ(answer() & 0x01, 0);
}

}  // namespace
}  // namespace skiff::devices
