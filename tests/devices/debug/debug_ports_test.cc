// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/debug/debug_ports.h"

#include <gmock/gmock.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/chardev/char_backend.h"
#include "devices/chardev/char_port.h"
#include "devices/testing/fake_char_backend.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;

TEST(DebugExitTest, ValueOfEachSizeReachesTheMachine) {
  std::vector<uint32_t> values;
  DebugExit device([&values](uint32_t value) { values.push_back(value); });
  const std::array<uint8_t, 8> data = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};
  device.bus_write(0, std::span(data).first(1));
  device.bus_write(0, std::span(data).first(2));
  device.bus_write(0, std::span(data).first(4));
  EXPECT_THAT(values, ElementsAre(0x11, 0x2211, 0x44332211));
  device.bus_write(0, data);  // No such size on the bus.
  device.bus_write(1, std::span(data).first(1));
  EXPECT_EQ(values.size(), 3u);
}

TEST(PvPanicTest, EventsAreOfferedAndReported) {
  std::vector<PvPanic::Event> events;
  PvPanic device([&events](PvPanic::Event event) { events.push_back(event); });
  std::array<uint8_t, 1> data{};
  device.bus_read(0, data);
  EXPECT_EQ(data[0], 3);
  for (const uint8_t value : std::to_array<uint8_t>({1, 2, 0x80})) {
    data[0] = value;
    device.bus_write(0, data);
  }
  EXPECT_THAT(events, ElementsAre(PvPanic::Event::kPanicked, PvPanic::Event::kCrashLoaded));
}

TEST(DebugConsoleTest, TextReachesTheHostAndTheProbeIsAnswered) {
  loop::ManualLoop loop;
  auto* host = new FakeCharBackend();
  CharPort port(loop, std::unique_ptr<CharBackend>(host), {.output_bytes = 4});
  DebugConsole console(port);
  std::array<uint8_t, 1> data{};
  console.bus_read(0, data);
  EXPECT_EQ(data[0], 0xe9);
  for (const char c : {'h', 'i', '!', '!', '?'}) {
    data[0] = static_cast<uint8_t>(c);
    console.bus_write(0, data);
  }
  loop.run_until_idle();
  EXPECT_EQ(host->output(), "hi!!");  // The port can hold nobody back: the fifth is lost,
  EXPECT_EQ(port.counters().refused_bytes, 1u);  // and counted.
}

}  // namespace
}  // namespace skiff::devices
