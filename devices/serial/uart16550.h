// SPDX-License-Identifier: GPL-2.0-or-later
// Uart16550: a 16550A serial port (National Semiconductor PC16550D, 1995).
//
// THRE is honest: it is set once the CharPort has taken the bytes, so a host that does not read
// holds the guest back, and only the guest. Input stays in the CharPort until the guest takes it:
// no overrun happens outside of loopback. A driver that works the modem control register gets input
// only while it asks for it (RTS, or the receive interrupt enabled): what was typed or piped before
// the guest's driver is up would otherwise fall to its test reads. Clearing the receive FIFO clears
// what was looped back, never the host's input.
// Thread: registers from any vCPU thread; constructor, destructor, reset() and input: main loop.
// Ownership: borrows port and interrupt line; takes the port's callbacks.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "devices/chardev/char_port.h"
#include "devices/core/byte_registers.h"
#include "devices/core/device.h"
#include "devices/core/irq_line.h"
#include "loop/mutex.h"

namespace skiff::devices {

struct UartCounters {
  uint64_t received_bytes = 0;     // Read by the guest.
  uint64_t transmitted_bytes = 0;  // Taken by the port.
  uint64_t lost_bytes = 0;         // Written by a guest that did not wait for THRE.
  uint64_t overruns = 0;           // In loopback.
  uint64_t interrupts = 0;         // Rising edges.
};

class Uart16550 final : public ByteRegisters, public Device {
 public:
  static constexpr uint64_t kSizeBytes = 8;

  Uart16550(CharPort& port, IrqLine& irq, std::string name);
  ~Uart16550() override;

  std::string_view name() const override { return name_; }
  loop::Task<void> reset() override;
  UartCounters counters() const;

 private:
  // The chip's FIFO; with FIFOs off only one byte of it is used.
  struct Fifo {
    std::array<uint8_t, 16> bytes{};
    size_t count = 0;
    void drop(size_t first);  // Moves up what follows.
  };

  uint8_t read_register(uint64_t offset) override;
  void write_register(uint64_t offset, uint8_t value) override;

  void on_port_input();
  void on_port_room();

  uint8_t read_data() SKIFF_REQUIRES(mutex_);
  uint8_t read_interrupt_id() SKIFF_REQUIRES(mutex_);
  uint8_t read_line_status() SKIFF_REQUIRES(mutex_);
  uint8_t read_modem_status() SKIFF_REQUIRES(mutex_);
  void write_data(uint8_t value) SKIFF_REQUIRES(mutex_);
  void write_interrupt_enable(uint8_t value) SKIFF_REQUIRES(mutex_);
  void write_fifo_control(uint8_t value) SKIFF_REQUIRES(mutex_);
  void write_modem_control(uint8_t value) SKIFF_REQUIRES(mutex_);
  bool latch_access() const SKIFF_REQUIRES(mutex_);
  bool loopback() const SKIFF_REQUIRES(mutex_);
  bool wants_input() const SKIFF_REQUIRES(mutex_);
  size_t fifo_capacity() const SKIFF_REQUIRES(mutex_);
  uint8_t modem_lines() const SKIFF_REQUIRES(mutex_);
  uint8_t pending_interrupt() const SKIFF_REQUIRES(mutex_);
  void fill_receive_fifo() SKIFF_REQUIRES(mutex_);
  void drain_transmit_fifo() SKIFF_REQUIRES(mutex_);
  void update_irq() SKIFF_REQUIRES(mutex_);
  void power_on() SKIFF_REQUIRES(mutex_);

  CharPort& port_;
  IrqLine& irq_;
  const std::string name_;

  // Held while the interrupt line is set, so that the line's last level is the registers' last
  // state. Taken before the port's own lock, never after it.
  mutable loop::Mutex mutex_;
  Fifo receive_ SKIFF_GUARDED_BY(mutex_);
  Fifo transmit_ SKIFF_GUARDED_BY(mutex_);
  std::array<uint8_t, 2> divisor_ SKIFF_GUARDED_BY(mutex_){};
  uint8_t interrupt_enable_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t line_control_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t modem_control_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t modem_delta_ SKIFF_GUARDED_BY(mutex_) = 0;
  uint8_t scratch_ SKIFF_GUARDED_BY(mutex_) = 0;
  size_t trigger_bytes_ SKIFF_GUARDED_BY(mutex_) = 1;
  bool fifos_on_ SKIFF_GUARDED_BY(mutex_) = false;
  bool overrun_ SKIFF_GUARDED_BY(mutex_) = false;
  bool empty_pending_ SKIFF_GUARDED_BY(mutex_) =
      false;  // "Transmitter empty" not yet acknowledged.
  bool modem_used_ SKIFF_GUARDED_BY(mutex_) = false;
  bool irq_high_ SKIFF_GUARDED_BY(mutex_) = false;
  UartCounters counters_ SKIFF_GUARDED_BY(mutex_);
};

}  // namespace skiff::devices
