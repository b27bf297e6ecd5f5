// SPDX-License-Identifier: GPL-2.0-or-later
// A guest that reads and writes the ports of all board devices at random, with any size, while the
// host types, stops reading, leaves and lets time pass.
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/acpi/acpi_pm.h"
#include "devices/acpi/reset_port.h"
#include "devices/chardev/char_backend.h"
#include "devices/chardev/char_port.h"
#include "devices/core/bus.h"
#include "devices/debug/debug_ports.h"
#include "devices/i8042/i8042.h"
#include "devices/rtc/cmos_rtc.h"
#include "devices/serial/uart16550.h"
#include "devices/testing/fake_char_backend.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/run_task.h"
#include "loop/check.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

constexpr uint16_t kUartPort = 0x3f8;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data, size) {}
  bool empty() const { return data_.empty(); }
  uint8_t byte() {
    if (data_.empty()) return 0;
    const uint8_t value = data_.front();
    data_ = data_.subspan(1);
    return value;
  }

 private:
  std::span<const uint8_t> data_;
};

// All devices at their ports, as a machine has them.
class Board {
 public:
  Board() {
    add(kUartPort, Uart16550::kSizeBytes, uart_);
    add(I8042::kDataPort, 1, i8042_.data_port());
    add(I8042::kCommandPort, 1, i8042_.command_port());
    add(CmosRtc::kBasePort, CmosRtc::kSizeBytes, rtc_);
    add(AcpiPm::kBasePort, AcpiPm::kSizeBytes, pm_);
    add(ResetPort::kBasePort, 4, reset_port_);
    add(DebugExit::kDefaultPort, DebugExit::kSizeBytes, exit_);
    add(DebugConsole::kDefaultPort, DebugConsole::kSizeBytes, console_);
    add(PvPanic::kDefaultPort, PvPanic::kSizeBytes, panic_);
  }

  void step(Input& input) {
    constexpr std::array<uint16_t, 9> kPorts = {0x3f8, 0x60, 0x64, 0x70, 0x600,
                                                0xcf8, 0xf4, 0xe9, 0x505};
    const uint8_t action = input.byte();
    if (action >= 0xf0) return disturb(action, input);
    const auto port = static_cast<uint16_t>(kPorts[action % kPorts.size()] + (input.byte() & 15));
    std::array<uint8_t, 8> data{};
    const size_t size = size_t{1} << (action >> 4 & 3);
    const auto used = std::span(data).first(size);
    if ((action & 0x80) != 0) {
      bus_.read(port, used);
      return;
    }
    for (uint8_t& byte : used) byte = input.byte();
    bus_.write(port, used);
  }

 private:
  void add(uint16_t port, uint64_t size, BusDevice& device) {
    SKIFF_CHECK(bus_.add(port, size, device).has_value());
  }

  void disturb(uint8_t action, Input& input) {
    switch (action & 7) {
      case 0:
        return loop_.run_until_idle();
      case 1:
        return loop_.advance_ns(int64_t{input.byte()} << (input.byte() % 40));
      case 2:
        return host_->type("some more input from the host's side");
      case 3:
        return host_->set_room(input.byte());
      case 4:
        return host_->give_room();
      case 5:
        return host_->set_peer((input.byte() & 1) != 0);
      case 6:
        pm_.press_power_button();
        return;
      default:
        SKIFF_CHECK(run_task(uart_.reset()) && run_task(rtc_.reset()) && run_task(pm_.reset()) &&
                    run_task(i8042_.reset()));
    }
  }

  loop::ManualLoop loop_;
  FakeIrqLine irq_;
  FakeCharBackend* host_ = new FakeCharBackend();
  CharPort port_{
      loop_, std::unique_ptr<CharBackend>(host_), {.output_bytes = 100, .input_bytes = 50}};
  PioBus bus_;
  Uart16550 uart_{port_, irq_, "serial0"};
  I8042 i8042_{irq_, [] {}};
  CmosRtc rtc_{loop_, loop_.clock(), irq_, {.below_4g_bytes = uint64_t{1} << 30}};
  AcpiPm pm_{loop_, loop_.clock(), irq_, {.on_power_off = [] {}}};
  ResetPort reset_port_{[] {}, nullptr};
  DebugExit exit_{[](uint32_t) {}};
  DebugConsole console_{port_};
  PvPanic panic_{[](PvPanic::Event) {}};
};

}  // namespace
}  // namespace skiff::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  skiff::devices::Input input(data, size);
  skiff::devices::Board board;
  while (!input.empty()) board.step(input);
  return 0;
}
