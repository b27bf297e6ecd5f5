// SPDX-License-Identifier: GPL-2.0-or-later
// Tests of VirtioConsole with a driver that plays the guest's side of all queues.
#include "devices/virtio/console/virtio_console.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/testing/fake_console_backend.h"
#include "devices/testing/fake_guest_memory.h"
#include "devices/testing/fake_transport.h"
#include "devices/testing/guest_driver.h"
#include "devices/virtio/console/console_control.h"
#include "devices/virtio/console/console_port.h"
#include "devices/virtio/virtio_device.h"
#include "loop/result.h"
#include "loop/testing/manual_loop.h"

namespace skiff::devices {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = ConsolePort::Kind;

constexpr uint64_t kMultiport = VirtioConsole::kFeatureMultiport | VirtioConsole::kFeatureSize;
constexpr QueueIndex kControlIn = VirtioConsole::kControlReceiveQueue;
constexpr QueueIndex kControlOut = VirtioConsole::kControlTransmitQueue;

// "event port value" and the text behind it, such as "7 1 1 stdin".
using Messages = std::vector<std::string>;

class VirtioConsoleTest : public ::testing::Test {
 protected:
  void create(VirtioConsole::ResizeOrder order = VirtioConsole::ResizeOrder::kColumnsFirst) {
    auto console = VirtioConsole::create(
        loop_, memory_,
        {.ports = {{.kind = Kind::kConsole, .backend = &terminal_},
                   {.kind = Kind::kStream, .name = "org.skiff.stdin", .backend = &stream_}},
         .resize_order = order});
    ASSERT_TRUE(console) << console.error().message();
    console_ = *std::move(console);
    console_->attach(transport_);
  }

  void start(uint64_t features = kMultiport) {
    if (!console_) create();
    VirtioStart start{.features = features, .queues = {}};
    drivers_.clear();
    for (QueueIndex q = 0; q < console_->queue_count(); ++q) {
      drivers_.push_back(std::make_unique<GuestDriver>(
          memory_, GuestDriver::Options{
                       .queue_size = 32, .base = {q * uint64_t{0x40000}}, .arena_bytes = 0x40000}));
      const bool used = (features & VirtioConsole::kFeatureMultiport) != 0 || q < 2;
      start.queues.push_back(used ? drivers_.back()->layout() : QueueLayout{});
    }
    console_->start(start);
    if (start.queues[kControlIn].size != 0) {
      for (int i = 0; i < 16; ++i) {
        control_buffers_[i] = driver(kControlIn).allocate(128);
        driver(kControlIn).offer({DriverBuffer::writable(control_buffers_[i], 128)});
      }
    }
    loop_.run_until_idle();
  }
  // What Linux does at the start of a device with these two ports.
  void bring_up() {
    start();
    control(ConsoleEvent::kDeviceReady, 0, 1);
    for (uint32_t port : {0u, 1u}) control(ConsoleEvent::kPortReady, port, 1);
    for (uint32_t port : {0u, 1u}) control(ConsoleEvent::kPortOpen, port, 1);
    received_control();
  }

  GuestDriver& driver(QueueIndex queue) { return *drivers_[queue]; }
  void kick(QueueIndex queue) {
    console_->doorbell(queue).notify();
    loop_.run_until_idle();
  }
  void control(ConsoleEvent event, uint32_t port, uint16_t value) {
    struct {
      uint32_t port;
      uint16_t event;
      uint16_t value;
    } wire{port, static_cast<uint16_t>(event), value};
    send(kControlOut, std::string_view(reinterpret_cast<const char*>(&wire), sizeof(wire)));
  }
  uint16_t send(QueueIndex queue, std::string_view text) {
    const auto buffer = driver(queue).allocate_with(std::as_bytes(std::span(text)));
    const uint16_t head = driver(queue).offer({buffer});
    kick(queue);
    return head;
  }
  Messages received_control() {
    Messages messages;
    while (const auto used = driver(kControlIn).collect()) {
      std::string bytes(used->written_bytes, '\0');
      const GuestAddress buffer = control_buffers_[used->head];
      EXPECT_TRUE(memory_.memory().read(buffer, std::as_writable_bytes(std::span(bytes))));
      uint32_t port = 0;
      uint16_t event = 0, value = 0;
      std::memcpy(&port, bytes.data(), 4);
      std::memcpy(&event, bytes.data() + 4, 2);
      std::memcpy(&value, bytes.data() + 6, 2);
      std::string text =
          std::to_string(event) + " " + std::to_string(port) + " " + std::to_string(value);
      if (event == 5) {
        uint16_t first = 0, second = 0;
        std::memcpy(&first, bytes.data() + 8, 2);
        std::memcpy(&second, bytes.data() + 10, 2);
        text += " " + std::to_string(first) + "x" + std::to_string(second);
      } else if (bytes.size() > 8) {
        text += " " + bytes.substr(8);
      }
      messages.push_back(text);
      driver(kControlIn).offer({DriverBuffer::writable(buffer, 128)});
    }
    return messages;
  }
  GuestAddress offer_room(QueueIndex queue, uint32_t bytes) {
    const GuestAddress room = driver(queue).allocate(bytes);
    driver(queue).offer({DriverBuffer::writable(room, bytes)});
    kick(queue);
    return room;
  }
  std::string text_at(GuestAddress address, uint32_t bytes) {
    std::string text(bytes, '\0');
    EXPECT_TRUE(memory_.memory().read(address, std::as_writable_bytes(std::span(text))));
    return text;
  }
  bool stop() {
    bool stopped = false;
    console_->stop([&stopped] { stopped = true; });
    loop_.run_until_idle();
    return stopped;
  }
  void TearDown() override {
    if (console_) {
      EXPECT_TRUE(stop());
    }
  }

  FakeGuestMemory memory_{4 << 20};
  loop::ManualLoop loop_;
  FakeTransport transport_;
  FakeConsoleBackend terminal_;
  FakeConsoleBackend stream_;
  std::unique_ptr<VirtioConsole> console_;
  std::vector<std::unique_ptr<GuestDriver>> drivers_;
  GuestAddress control_buffers_[16];
};

TEST_F(VirtioConsoleTest, ConfigurationHoldsSizeAndPorts) {
  create();
  console_->set_size(120, 40);
  std::array<uint8_t, 14> config{};
  config.fill(0xee);
  console_->read_config(0, config);
  EXPECT_THAT(config, ElementsAre(120, 0, 40, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  std::array<uint8_t, 2> far{1, 1};
  console_->read_config(~uint64_t{0} - 1, far);
  EXPECT_THAT(far, ElementsAre(0, 0));
  EXPECT_EQ(console_->queue_count(), 6);
}

TEST_F(VirtioConsoleTest, PortsThatCannotBeAreRefused) {
  auto kind_of = [&](std::vector<VirtioConsole::PortOptions> ports) {
    auto console = VirtioConsole::create(loop_, memory_, {.ports = std::move(ports)});
    return !console && console.error().kind() == loop::ErrorKind::kInvalidArgument;
  };
  EXPECT_TRUE(kind_of({}));
  EXPECT_TRUE(kind_of({{.kind = Kind::kStream, .name = "", .backend = &stream_}}));
  EXPECT_TRUE(kind_of({{.kind = Kind::kStream, .name = "../x", .backend = &stream_}}));
  EXPECT_TRUE(
      kind_of({{.kind = Kind::kStream, .name = std::string(65, 'a'), .backend = &stream_}}));
  EXPECT_TRUE(kind_of({{.name = "a", .backend = &stream_}, {.name = "a", .backend = &terminal_}}));
  std::vector<VirtioConsole::PortOptions> many(32, {.kind = Kind::kConsole, .backend = &stream_});
  EXPECT_TRUE(kind_of(many));
}

TEST_F(VirtioConsoleTest, GuestLearnsItsPortsInOrder) {
  create();
  console_->set_size(80, 25);
  start();
  EXPECT_THAT(received_control(), IsEmpty());
  control(ConsoleEvent::kDeviceReady, 0, 1);
  EXPECT_THAT(received_control(), ElementsAre("1 0 1", "1 1 1"));
  control(ConsoleEvent::kPortReady, 0, 1);
  EXPECT_THAT(received_control(), ElementsAre("4 0 1", "5 0 0 80x25", "6 0 1"));
  control(ConsoleEvent::kPortReady, 1, 1);
  EXPECT_THAT(received_control(), ElementsAre("7 1 1 org.skiff.stdin", "6 1 1"));
}

TEST_F(VirtioConsoleTest, MessagesWaitForBuffersAndAreNotLost) {
  start();
  for (int i = 0; i < 10; ++i) {  // Uses up the sixteen buffers, and asks for more.
    control(ConsoleEvent::kDeviceReady, 0, 1);
    control(ConsoleEvent::kPortReady, 0, 1);
    control(ConsoleEvent::kPortReady, 1, 1);
  }
  Messages all;
  for (Messages some = received_control(); !some.empty(); some = received_control()) {
    all.insert(all.end(), some.begin(), some.end());
    kick(kControlIn);
  }
  EXPECT_LE(all.size(), 22u);  // What was asked for again meanwhile is told once.
  EXPECT_THAT(all, ::testing::Contains("7 1 1 org.skiff.stdin"));
}

TEST_F(VirtioConsoleTest, OutputReachesItsPort) {
  bring_up();
  send(1, "hello ");
  send(1, "terminal");
  send(5, "stream");
  EXPECT_EQ(terminal_.output, "hello terminal");
  EXPECT_EQ(stream_.output, "stream");
  EXPECT_THAT(driver(1).used_heads().size(), 2u);
}

TEST_F(VirtioConsoleTest, OutputTheHostDoesNotTakeStaysInTheRing) {
  bring_up();
  terminal_.set_room(3);
  send(1, "abcdef");
  send(1, "ghi");
  EXPECT_EQ(terminal_.output, "abc");
  EXPECT_EQ(driver(1).used_index(), 0);
  terminal_.set_room(1);
  loop_.run_until_idle();
  EXPECT_EQ(terminal_.output, "abcd");
  terminal_.set_room(4);
  loop_.run_until_idle();
  EXPECT_EQ(terminal_.output, "abcdefgh");
  EXPECT_EQ(driver(1).used_heads().size(), 1u);
  terminal_.set_room(FakeConsoleBackend::kUnlimited);
  loop_.run_until_idle();
  EXPECT_EQ(terminal_.output, "abcdefghi");
  EXPECT_EQ(driver(1).used_heads().size(), 1u);
}

TEST_F(VirtioConsoleTest, BigOutputIsMovedInBoundedTurns) {
  bring_up();
  const GuestAddress data = driver(1).allocate(200 * 1024);
  driver(1).offer({DriverBuffer::readable(data, 200 * 1024)});
  console_->doorbell(1).notify();
  size_t most = 0;
  for (size_t before = 0; loop_.loop().run_once(loop::EventLoop::Wait::kNo);
       before = terminal_.output.size())
    most = std::max(most, terminal_.output.size() - before);
  EXPECT_EQ(most, ConsolePort::kBytesPerTurn);
  EXPECT_EQ(terminal_.output.size(), 200u * 1024);
  EXPECT_EQ(driver(1).used_heads().size(), 1u);
}

TEST_F(VirtioConsoleTest, InputWaitsForBuffers) {
  bring_up();
  terminal_.give_input("typed");
  loop_.run_until_idle();
  EXPECT_EQ(terminal_.input_left(), 5u);  // Not even read.
  const GuestAddress first = offer_room(0, 3);
  const GuestAddress second = offer_room(0, 16);
  EXPECT_THAT(driver(0).collect_all(), ElementsAre(UsedElement{0, 3}, UsedElement{1, 2}));
  EXPECT_EQ(text_at(first, 3), "typ");
  EXPECT_EQ(text_at(second, 2), "ed");
}

TEST_F(VirtioConsoleTest, BuffersWaitForInput) {
  bring_up();
  const GuestAddress room = offer_room(4, 16);
  offer_room(4, 16);
  EXPECT_EQ(driver(4).used_index(), 0);
  stream_.give_input("a");
  loop_.run_until_idle();
  EXPECT_THAT(driver(4).collect_all(), ElementsAre(UsedElement{0, 1}));
  EXPECT_EQ(text_at(room, 1), "a");
  stream_.give_input("bc");
  loop_.run_until_idle();
  EXPECT_THAT(driver(4).collect_all(), ElementsAre(UsedElement{1, 2}));
}

TEST_F(VirtioConsoleTest, ClosedGuestPortGetsNoInputAndLosesNone) {
  bring_up();
  control(ConsoleEvent::kPortOpen, 1, 0);
  offer_room(4, 16);
  stream_.give_input("kept");
  loop_.run_until_idle();
  EXPECT_EQ(driver(4).used_index(), 0);
  EXPECT_EQ(stream_.input_left(), 4u);
  control(ConsoleEvent::kPortOpen, 1, 1);
  EXPECT_THAT(driver(4).collect_all(), ElementsAre(UsedElement{0, 4}));
  EXPECT_THAT(stream_.guest_changes, ElementsAre(true, false, true));
}

TEST_F(VirtioConsoleTest, EndOfInputComesAfterTheInput) {
  bring_up();
  const GuestAddress room = offer_room(4, 16);
  stream_.give_input("last");
  stream_.end_input();
  loop_.run_until_idle();
  EXPECT_THAT(driver(4).collect_all(), ElementsAre(UsedElement{0, 4}));
  EXPECT_EQ(text_at(room, 4), "last");
  EXPECT_THAT(received_control(), ElementsAre("6 1 0"));
  stream_.set_open(true);
  stream_.set_open(false);
  stream_.set_open(true);
  loop_.run_until_idle();
  EXPECT_THAT(received_control(), ElementsAre("6 1 0", "6 1 1"));
}

TEST_F(VirtioConsoleTest, HostHearsOfAGuestsCloseWhenTheOutputIsThrough) {
  bring_up();
  stream_.set_room(2);
  send(5, "abcd");
  control(ConsoleEvent::kPortOpen, 1, 0);
  EXPECT_THAT(stream_.guest_changes, ElementsAre(true));
  stream_.set_room(FakeConsoleBackend::kUnlimited);
  loop_.run_until_idle();
  EXPECT_EQ(stream_.output, "abcd");
  EXPECT_THAT(stream_.guest_changes, ElementsAre(true, false));
}

TEST_F(VirtioConsoleTest, CloseThatOvertakesUnkickedOutputStillComesLast) {
  bring_up();
  const auto buffer = driver(5).allocate_with(std::as_bytes(std::span("tail", 4)));
  driver(5).offer({buffer});  // The kick is still on its way.
  control(ConsoleEvent::kPortOpen, 1, 0);
  EXPECT_EQ(stream_.output, "tail");
  EXPECT_THAT(stream_.guest_changes, ElementsAre(true, false));
}

TEST_F(VirtioConsoleTest, ResizeIsToldToConsolesOnce) {
  bring_up();
  console_->set_size(100, 30);
  console_->set_size(100, 30);
  console_->set_size(101, 31);
  loop_.run_until_idle();
  EXPECT_THAT(received_control(), ElementsAre("5 0 0 101x31"));
  EXPECT_EQ(transport_.config_interrupts(), 0u);
}

TEST_F(VirtioConsoleTest, ResizeForOlderLinuxHasRowsFirst) {
  create(VirtioConsole::ResizeOrder::kRowsFirst);
  bring_up();
  console_->set_size(100, 30);
  loop_.run_until_idle();
  EXPECT_THAT(received_control(), ElementsAre("5 0 0 30x100"));
}

TEST_F(VirtioConsoleTest, WithoutMultiportPortZeroIsOpenFromTheStart) {
  start(VirtioConsole::kFeatureSize);
  send(1, "plain");
  EXPECT_EQ(terminal_.output, "plain");
  terminal_.give_input("in");
  const GuestAddress room = offer_room(0, 8);
  EXPECT_EQ(driver(0).collect_all().size(), 1u);
  EXPECT_EQ(text_at(room, 2), "in");
  console_->set_size(90, 20);
  EXPECT_EQ(transport_.config_interrupts(), 1u);
}

TEST_F(VirtioConsoleTest, NonsenseOnTheControlQueueIsIgnored) {
  start();
  control(ConsoleEvent::kPortReady, 0, 1);  // Before DEVICE_READY.
  control(ConsoleEvent::kDeviceReady, 0, 0);
  EXPECT_THAT(received_control(), IsEmpty());
  control(ConsoleEvent::kDeviceReady, 0, 1);
  received_control();
  control(ConsoleEvent::kPortReady, 2, 1);
  control(ConsoleEvent::kPortOpen, 0xffffffff, 1);
  control(static_cast<ConsoleEvent>(0xffff), 0, 1);
  control(ConsoleEvent::kDeviceAdd, 0, 1);
  control(ConsoleEvent::kDeviceReady, 0, 1);
  control(ConsoleEvent::kPortReady, 0, 0);
  send(kControlOut, "short");
  driver(kControlOut).offer({DriverBuffer::writable(driver(kControlOut).allocate(64), 64)});
  kick(kControlOut);
  EXPECT_THAT(received_control(), IsEmpty());
  EXPECT_EQ(driver(kControlOut).used_index(), 11);
  EXPECT_FALSE(transport_.reset_requested());
  control(ConsoleEvent::kPortReady, 1, 1);  // Still at work.
  EXPECT_THAT(received_control(), ElementsAre("7 1 1 org.skiff.stdin", "6 1 1"));
}

TEST_F(VirtioConsoleTest, ControlBufferTooSmallForItsMessageIsGivenBackEmpty) {
  start();
  // Replace the sixteen good buffers: use them up first.
  control(ConsoleEvent::kDeviceReady, 0, 1);
  for (int i = 0; i < 7; ++i) control(ConsoleEvent::kPortReady, 0, 1);
  ASSERT_EQ(driver(kControlIn).used_heads().size(), 16u);
  control(ConsoleEvent::kPortReady, 1, 1);
  offer_room(kControlIn, 10);
  ASSERT_EQ(driver(kControlIn).collect()->written_bytes, 0u);
  offer_room(kControlIn, 64);
  EXPECT_EQ(driver(kControlIn).collect()->written_bytes, 8u + 15u);
}

TEST_F(VirtioConsoleTest, BrokenDataQueueAsksForAResetAndTheOthersGoOn) {
  bring_up();
  driver(5).offer_head(77);
  kick(5);
  EXPECT_TRUE(transport_.reset_requested());
  send(1, "alive");
  EXPECT_EQ(terminal_.output, "alive");
  control(ConsoleEvent::kPortOpen, 1, 0);  // There is no output left to wait for.
  EXPECT_THAT(stream_.guest_changes, ElementsAre(true, false));
}

TEST_F(VirtioConsoleTest, StopDoesNotWaitForTheHostAndTellsItTheGuestLeft) {
  bring_up();
  terminal_.set_room(1);
  send(1, "stuck");
  offer_room(4, 16);
  EXPECT_TRUE(stop());
  EXPECT_EQ(terminal_.output, "s");
  EXPECT_THAT(terminal_.guest_changes, ElementsAre(true, false));
  EXPECT_THAT(stream_.guest_changes, ElementsAre(true, false));
  EXPECT_EQ(driver(4).used_index(), 0);  // No empty read for the guest.
  terminal_.give_input("x");             // Nobody listens.
}

TEST_F(VirtioConsoleTest, StopStillDeliversWhatTheHostTakesAtOnce) {
  bring_up();
  const auto buffer = driver(1).allocate_with(std::as_bytes(std::span("bye", 3)));
  driver(1).offer({buffer});
  EXPECT_TRUE(stop());
  EXPECT_EQ(terminal_.output, "bye");
}

TEST_F(VirtioConsoleTest, RestartBeginsFromTheBeginning) {
  bring_up();
  EXPECT_TRUE(stop());
  start();
  EXPECT_THAT(received_control(), IsEmpty());
  control(ConsoleEvent::kDeviceReady, 0, 1);
  EXPECT_THAT(received_control(), ElementsAre("1 0 1", "1 1 1"));
}

}  // namespace
}  // namespace skiff::devices
