// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/i8042/i8042.h"

#include <cstdint>
#include <functional>
#include <utility>

#include "devices/core/irq_line.h"
#include "loop/mutex.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

constexpr uint8_t kStatusOutputFull = 0x01;
constexpr uint8_t kStatusSystem = 0x04;  // Passed its self-test.
constexpr uint8_t kStatusCommand = 0x08;
constexpr uint8_t kStatusUnlocked = 0x10;
constexpr uint8_t kStatusAux = 0x20;
constexpr uint8_t kStatusTimeout = 0x40;

constexpr uint8_t kConfigInterrupt = 0x01;
constexpr uint8_t kConfigSystem = 0x04;
constexpr uint8_t kConfigKeyboardOff = 0x10;
constexpr uint8_t kConfigAuxOff = 0x20;

constexpr uint8_t kOutputNoReset = 0x01;
constexpr uint8_t kOutputA20 = 0x02;

constexpr uint8_t kReadConfig = 0x20;
constexpr uint8_t kWriteConfig = 0x60;
constexpr uint8_t kAuxOff = 0xa7;
constexpr uint8_t kAuxOn = 0xa8;
constexpr uint8_t kTestAux = 0xa9;
constexpr uint8_t kSelfTest = 0xaa;
constexpr uint8_t kTestKeyboard = 0xab;
constexpr uint8_t kKeyboardOff = 0xad;
constexpr uint8_t kKeyboardOn = 0xae;
constexpr uint8_t kReadInputPort = 0xc0;
constexpr uint8_t kReadOutputPort = 0xd0;
constexpr uint8_t kWriteOutputPort = 0xd1;
constexpr uint8_t kWriteKeyboardOutput = 0xd2;
constexpr uint8_t kWriteAuxOutput = 0xd3;
constexpr uint8_t kWriteAux = 0xd4;
constexpr uint8_t kA20Off = 0xdd;
constexpr uint8_t kA20On = 0xdf;
constexpr uint8_t kPulse = 0xf0;  // To 0xff: lines 0 to 3 whose bit is clear; line 0 is the reset.

constexpr uint8_t kSelfTestPassed = 0x55;
constexpr uint8_t kPortTestPassed = 0x00;
constexpr uint8_t kPortClockStuck = 0x01;  // Nothing is plugged in.
constexpr uint8_t kResend = 0xfe;
constexpr uint8_t kInputPortUnlocked = 0x80;

constexpr uint8_t with(uint8_t value, uint8_t bits, bool on) {
  return static_cast<uint8_t>(on ? value | bits : value & ~unsigned{bits});
}

}  // namespace

uint8_t I8042::Port::read_register(uint64_t offset) {
  if (offset != 0) return 0xff;
  return command_ ? chip_.read_status() : chip_.read_data();
}

void I8042::Port::write_register(uint64_t offset, uint8_t value) {
  if (offset != 0) return;
  if (command_) {
    chip_.write_command(value);
  } else {
    chip_.write_data(value);
  }
}

I8042::I8042(IrqLine& irq, std::function<void()> on_reset)
    : irq_(irq), on_reset_(std::move(on_reset)) {
  const loop::MutexLock lock(mutex_);
  power_on();
}

loop::Task<void> I8042::reset() {
  const loop::MutexLock lock(mutex_);
  power_on();
  co_return;
}

void I8042::power_on() {
  config_ = kConfigSystem | kConfigAuxOff;
  output_port_ = kOutputNoReset | kOutputA20;
  output_ = 0;
  status_ = kStatusUnlocked;
  parameter_of_ = 0;
  update_irq();
}

bool I8042::a20_enabled() const {
  const loop::MutexLock lock(mutex_);
  return (output_port_ & kOutputA20) != 0;
}

uint8_t I8042::read_status() {
  const loop::MutexLock lock(mutex_);
  return with(status_, kStatusSystem, (config_ & kConfigSystem) != 0);
}

uint8_t I8042::read_data() {
  const loop::MutexLock lock(mutex_);
  status_ = with(status_, kStatusOutputFull | kStatusAux | kStatusTimeout, false);
  update_irq();
  return output_;  // The last byte again when there is no new one, as the chip does.
}

void I8042::write_command(uint8_t command) {
  {
    const loop::MutexLock lock(mutex_);
    status_ |= kStatusCommand;
    parameter_of_ = 0;
    if (command < kPulse) return execute(command);
    if ((command & kOutputNoReset) != 0) return;
  }
  on_reset_();
}

void I8042::execute(uint8_t command) {
  switch (command) {
    case kReadConfig:
      return answer(config_);
    case kWriteConfig:
    case kWriteOutputPort:
    case kWriteKeyboardOutput:
    case kWriteAuxOutput:
    case kWriteAux:
      parameter_of_ = command;
      return;
    case kAuxOff:
    case kAuxOn:
      config_ = with(config_, kConfigAuxOff, command == kAuxOff);
      return;
    case kTestAux:
      return answer(kPortClockStuck);
    case kSelfTest:
      config_ |= kConfigSystem;
      return answer(kSelfTestPassed);
    case kTestKeyboard:
      return answer(kPortTestPassed);
    case kKeyboardOff:
    case kKeyboardOn:
      config_ = with(config_, kConfigKeyboardOff, command == kKeyboardOff);
      return update_irq();
    case kReadInputPort:
      return answer(kInputPortUnlocked);
    case kReadOutputPort:
      return answer(output_port_);
    case kA20Off:
    case kA20On:
      output_port_ = with(output_port_, kOutputA20, command == kA20On);
      return;
    default:  // Others are ignored, as by the chips that do not know them.
      return;
  }
}

void I8042::write_data(uint8_t value) {
  bool pulled_reset = false;
  {
    const loop::MutexLock lock(mutex_);
    status_ = with(status_, kStatusCommand, false);
    const uint8_t command = std::exchange(parameter_of_, uint8_t{0});
    if (command == 0) {  // To the keyboard, which is not there.
      config_ = with(config_, kConfigKeyboardOff, false);
      answer(kResend, Source::kKeyboardTimeout);
    } else {
      pulled_reset = write_parameter(command, value);
    }
  }
  if (pulled_reset) on_reset_();
}

bool I8042::write_parameter(uint8_t command, uint8_t value) {
  switch (command) {
    case kWriteConfig:
      config_ = value;
      update_irq();
      return false;
    case kWriteOutputPort:
      output_port_ = value | kOutputNoReset;
      return (value & kOutputNoReset) == 0;
    case kWriteAux:
      answer(kResend, Source::kAuxTimeout);
      return false;
    default:
      // kWriteKeyboardOutput, and kWriteAuxOutput too: not marked as coming from the aux port, by
      // which a driver knows at once that there is none.
      answer(value);
      return false;
  }
}

void I8042::answer(uint8_t value, Source source) {
  output_ = value;
  status_ = with(status_, kStatusAux | kStatusTimeout, false);
  status_ |= kStatusOutputFull;
  if (source != Source::kController) status_ |= kStatusTimeout;
  if (source == Source::kAuxTimeout) status_ |= kStatusAux;
  update_irq();
}

void I8042::update_irq() {
  const bool full = (status_ & kStatusOutputFull) != 0 && (status_ & kStatusAux) == 0;
  irq_.set_level(full && (config_ & kConfigInterrupt) != 0 && (config_ & kConfigKeyboardOff) == 0);
}

}  // namespace skiff::devices
