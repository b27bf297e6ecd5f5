// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/serial/uart16550.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "devices/chardev/char_port.h"
#include "devices/core/irq_line.h"
#include "loop/mutex.h"
#include "loop/task.h"

namespace skiff::devices {
namespace {

// Offsets (PC16550D, table I). The first two are the divisor with DLAB set.
constexpr uint64_t kData = 0;
constexpr uint64_t kInterruptEnable = 1;
constexpr uint64_t kInterruptIdOrFifoControl = 2;
constexpr uint64_t kLineControl = 3;
constexpr uint64_t kModemControl = 4;
constexpr uint64_t kLineStatus = 5;
constexpr uint64_t kModemStatus = 6;
constexpr uint64_t kScratch = 7;

// Interrupt enable.
constexpr uint8_t kEnableReceive = 0x01;
constexpr uint8_t kEnableEmpty = 0x02;
constexpr uint8_t kEnableLine = 0x04;
constexpr uint8_t kEnableModem = 0x08;

// Interrupt identification, highest priority first (table IV).
constexpr uint8_t kIdLine = 0x06;
constexpr uint8_t kIdReceive = 0x04;
constexpr uint8_t kIdTimeout = 0x0c;
constexpr uint8_t kIdEmpty = 0x02;
constexpr uint8_t kIdModem = 0x00;
constexpr uint8_t kIdNone = 0x01;
constexpr uint8_t kIdFifosOn = 0xc0;

constexpr uint8_t kFifoEnable = 0x01;
constexpr uint8_t kFifoClearReceive = 0x02;
constexpr uint8_t kFifoClearTransmit = 0x04;
constexpr std::array<size_t, 4> kTriggers = {1, 4, 8, 14};

constexpr uint8_t kLineDlab = 0x80;

constexpr uint8_t kModemDtr = 0x01;
constexpr uint8_t kModemRts = 0x02;
constexpr uint8_t kModemOut1 = 0x04;
constexpr uint8_t kModemOut2 = 0x08;
constexpr uint8_t kModemLoop = 0x10;

constexpr uint8_t kStatusReady = 0x01;
constexpr uint8_t kStatusOverrun = 0x02;
constexpr uint8_t kStatusHoldingEmpty = 0x20;
constexpr uint8_t kStatusTransmitterEmpty = 0x40;

constexpr uint8_t kLineCts = 0x10;
constexpr uint8_t kLineDsr = 0x20;
constexpr uint8_t kLineRi = 0x40;
constexpr uint8_t kLineDcd = 0x80;

// The input lines the modem control register drives in loopback (section 8.6.5).
uint8_t looped_lines(uint8_t control) {
  unsigned lines = 0;
  if (control & kModemRts) lines |= kLineCts;
  if (control & kModemDtr) lines |= kLineDsr;
  if (control & kModemOut1) lines |= kLineRi;
  if (control & kModemOut2) lines |= kLineDcd;
  return static_cast<uint8_t>(lines);
}

}  // namespace

void Uart16550::Fifo::drop(size_t first) {
  std::copy(bytes.begin() + static_cast<std::ptrdiff_t>(first),
            bytes.begin() + static_cast<std::ptrdiff_t>(count), bytes.begin());
  count -= first;
}

Uart16550::Uart16550(CharPort& port, IrqLine& irq, std::string name)
    : port_(port), irq_(irq), name_(std::move(name)) {
  port_.set_callbacks([this] { on_port_input(); }, [this] { on_port_room(); });
}

Uart16550::~Uart16550() { port_.set_callbacks(nullptr, nullptr); }

loop::Task<void> Uart16550::reset() {
  const loop::MutexLock lock(mutex_);
  power_on();
  co_return;
}

void Uart16550::power_on() {
  receive_.count = 0;
  transmit_.count = 0;
  divisor_ = {};
  interrupt_enable_ = line_control_ = modem_control_ = modem_delta_ = scratch_ = 0;
  trigger_bytes_ = 1;
  fifos_on_ = overrun_ = empty_pending_ = modem_used_ = false;
  update_irq();
}

UartCounters Uart16550::counters() const {
  const loop::MutexLock lock(mutex_);
  return counters_;
}

void Uart16550::on_port_input() {
  const loop::MutexLock lock(mutex_);
  fill_receive_fifo();
  update_irq();
}

void Uart16550::on_port_room() {
  const loop::MutexLock lock(mutex_);
  drain_transmit_fifo();
}

bool Uart16550::latch_access() const { return (line_control_ & kLineDlab) != 0; }
bool Uart16550::loopback() const { return (modem_control_ & kModemLoop) != 0; }
size_t Uart16550::fifo_capacity() const { return fifos_on_ ? receive_.bytes.size() : 1; }

bool Uart16550::wants_input() const {
  if (loopback()) return false;
  return !modem_used_ || (modem_control_ & kModemRts) != 0 ||
         (interrupt_enable_ & kEnableReceive) != 0;
}

uint8_t Uart16550::modem_lines() const {
  // Outside loopback a host is always there and ready.
  return loopback() ? looped_lines(modem_control_) : kLineDcd | kLineDsr | kLineCts;
}

uint8_t Uart16550::read_register(uint64_t offset) {
  const loop::MutexLock lock(mutex_);
  switch (offset) {
    case kData:
      return latch_access() ? divisor_[0] : read_data();
    case kInterruptEnable:
      return latch_access() ? divisor_[1] : interrupt_enable_;
    case kInterruptIdOrFifoControl:
      return read_interrupt_id();
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return read_line_status();
    case kModemStatus:
      return read_modem_status();
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void Uart16550::write_register(uint64_t offset, uint8_t value) {
  const loop::MutexLock lock(mutex_);
  switch (offset) {
    case kData:
      if (!latch_access()) return write_data(value);
      divisor_[0] = value;
      return;
    case kInterruptEnable:
      if (!latch_access()) return write_interrupt_enable(value);
      divisor_[1] = value;
      return;
    case kInterruptIdOrFifoControl:
      return write_fifo_control(value);
    case kLineControl:
      line_control_ = value;
      return;
    case kModemControl:
      return write_modem_control(value);
    case kScratch:
      scratch_ = value;
      return;
    default:  // The status registers take no writes.
      return;
  }
}

uint8_t Uart16550::read_data() {
  uint8_t value = 0;
  if (receive_.count > 0 && (loopback() || wants_input())) {
    value = receive_.bytes[0];
    receive_.drop(1);
    ++counters_.received_bytes;
  } else if (wants_input()) {
    // A guest that polls: from the port at the moment it asks, so that clearing the FIFO loses
    // nothing.
    counters_.received_bytes += port_.read(std::span(&value, 1));
  }
  fill_receive_fifo();
  update_irq();
  return value;
}

uint8_t Uart16550::read_interrupt_id() {
  const uint8_t id = pending_interrupt();
  if (id == kIdEmpty) {  // Reading it is the acknowledgement (table IV).
    empty_pending_ = false;
    update_irq();
  }
  return static_cast<uint8_t>(id | (fifos_on_ ? kIdFifosOn : 0));
}

uint8_t Uart16550::read_line_status() {
  unsigned status = 0;
  const bool has_input = receive_.count > 0 || port_.readable_bytes() > 0;
  if (loopback() ? receive_.count > 0 : wants_input() && has_input) status |= kStatusReady;
  if (overrun_) status |= kStatusOverrun;
  if (transmit_.count == 0) status |= kStatusHoldingEmpty | kStatusTransmitterEmpty;
  overrun_ = false;
  update_irq();
  return static_cast<uint8_t>(status);
}

uint8_t Uart16550::read_modem_status() {
  const unsigned status = unsigned{modem_lines()} | modem_delta_;
  modem_delta_ = 0;
  update_irq();
  return static_cast<uint8_t>(status);
}

void Uart16550::write_data(uint8_t value) {
  empty_pending_ = false;
  if (loopback()) {
    if (receive_.count < fifo_capacity()) {
      receive_.bytes[receive_.count++] = value;
    } else {
      overrun_ = true;
      ++counters_.overruns;
    }
    empty_pending_ = true;
    return update_irq();
  }
  // The line falls even if it rises again at once: a driver that does not read the identification
  // register waits for the edge.
  update_irq();
  if (transmit_.count < fifo_capacity()) {
    transmit_.bytes[transmit_.count++] = value;
  } else {
    ++counters_.lost_bytes;  // As in the chip, when written without waiting for THRE.
  }
  drain_transmit_fifo();
}

void Uart16550::write_interrupt_enable(uint8_t value) {
  const unsigned enabled = value & ~unsigned{interrupt_enable_};
  interrupt_enable_ = value & 0x0f;
  // Enabling it with the transmitter empty interrupts at once; drivers start sending this way.
  if ((enabled & kEnableEmpty) != 0 && transmit_.count == 0) empty_pending_ = true;
  fill_receive_fifo();
  update_irq();
}

void Uart16550::write_fifo_control(uint8_t value) {
  const bool enable = (value & kFifoEnable) != 0;
  const bool changed = enable != fifos_on_;
  fifos_on_ = enable;
  // The other bits count only together with the enable bit; changing that clears both (8.5). What
  // the host sent stays: Linux does this with the receive interrupt on, and would lose what fell in
  // between, each time that a port is opened.
  if (loopback() && (changed || (enable && (value & kFifoClearReceive) != 0))) receive_.count = 0;
  if (changed || (enable && (value & kFifoClearTransmit) != 0)) {
    if (transmit_.count > 0) empty_pending_ = true;
    transmit_.count = 0;
  }
  trigger_bytes_ = enable ? kTriggers[value >> 6] : 1;
  fill_receive_fifo();
  update_irq();
}

void Uart16550::write_modem_control(uint8_t value) {
  const uint8_t before = modem_lines();
  modem_control_ = value & 0x1f;
  modem_used_ = true;
  const unsigned changed = unsigned{before} ^ modem_lines();
  // Changes of CTS, DSR and DCD, but of RI only its fall (8.7).
  modem_delta_ = static_cast<uint8_t>(modem_delta_ | ((changed & ~unsigned{kLineRi}) >> 4) |
                                      ((changed & before & kLineRi) >> 4));
  fill_receive_fifo();
  update_irq();
}

// Only for a guest that is told by interrupt; others fetch byte by byte.
void Uart16550::fill_receive_fifo() {
  if (!wants_input() || (interrupt_enable_ & kEnableReceive) == 0) return;
  const size_t capacity = fifo_capacity();
  if (receive_.count >= capacity) return;
  receive_.count +=
      port_.read(std::span(receive_.bytes).subspan(receive_.count, capacity - receive_.count));
}

void Uart16550::drain_transmit_fifo() {
  if (transmit_.count == 0) return;
  const size_t taken = port_.write(std::span(transmit_.bytes).first(transmit_.count));
  transmit_.drop(taken);
  counters_.transmitted_bytes += taken;
  if (transmit_.count == 0) empty_pending_ = true;
  update_irq();
}

uint8_t Uart16550::pending_interrupt() const {
  if ((interrupt_enable_ & kEnableLine) != 0 && overrun_) return kIdLine;
  if ((interrupt_enable_ & kEnableReceive) != 0 && receive_.count > 0) {
    // Our line is infinitely fast: less than the trigger level means that the sender has paused,
    // which is the character timeout (8.4).
    return receive_.count >= trigger_bytes_ ? kIdReceive : kIdTimeout;
  }
  if ((interrupt_enable_ & kEnableEmpty) != 0 && empty_pending_) return kIdEmpty;
  if ((interrupt_enable_ & kEnableModem) != 0 && modem_delta_ != 0) return kIdModem;
  return kIdNone;
}

void Uart16550::update_irq() {
  const bool high = pending_interrupt() != kIdNone;
  if (high == irq_high_) return;
  irq_high_ = high;
  if (high) ++counters_.interrupts;
  irq_.set_level(high);
}

}  // namespace skiff::devices
