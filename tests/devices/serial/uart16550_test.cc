// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/serial/uart16550.h"

#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/chardev/char_backend.h"
#include "devices/chardev/char_port.h"
#include "devices/testing/fake_char_backend.h"
#include "devices/testing/fake_irq.h"
#include "devices/testing/run_task.h"
#include "loop/testing/manual_loop.h"
#include "loop/thread.h"

namespace skiff::devices {
namespace {

constexpr uint64_t kData = 0, kIer = 1, kIir = 2, kFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6,
                   kScr = 7;
constexpr uint8_t kLsrReady = 0x01, kLsrOverrun = 0x02, kLsrEmpty = 0x60;
constexpr uint8_t kNoInterrupt = 0x01, kTimeout = 0x0c, kReceive = 0x04, kEmpty = 0x02,
                  kLine = 0x06;

class UartTest : public ::testing::Test {
 protected:
  uint8_t in(uint64_t offset) {
    uint8_t value = 0;
    uart_.bus_read(offset, std::span(&value, 1));
    return value;
  }
  void out(uint64_t offset, uint8_t value) { uart_.bus_write(offset, std::span(&value, 1)); }
  uint8_t interrupt_id() { return in(kIir) & 0x0f; }
  // As a driver that polls.
  bool send(char c) {
    if ((in(kLsr) & 0x20) == 0) return false;
    out(kData, static_cast<uint8_t>(c));
    return true;
  }
  std::string receive_all() {
    std::string text;
    while ((in(kLsr)&kLsrReady) != 0) text += static_cast<char>(in(kData));
    return text;
  }

  loop::ManualLoop loop_;
  FakeCharBackend* host_ = new FakeCharBackend();
  CharPort port_{
      loop_, std::unique_ptr<CharBackend>(host_), {.output_bytes = 32, .input_bytes = 64}};
  FakeIrqLine irq_;
  Uart16550 uart_{port_, irq_, "serial0"};
};

// The steps of Linux's 8250_port.c, autoconfig().
TEST_F(UartTest, LinuxFindsA16550A) {
  out(kIer, 0);
  out(kIer, 0x0f);
  EXPECT_EQ(in(kIer) & 0x0f, 0x0f);
  out(kIer, 0);
  EXPECT_EQ(in(kIer) & 0x0f, 0);
  const uint8_t mcr = in(kMcr);
  out(kMcr, 0x1a);  // LOOP, OUT2, RTS
  EXPECT_EQ(in(kMsr) & 0xf0, 0x90);
  out(kMcr, mcr);
  out(kLcr, 0xbf);
  out(kIir, 0);
  out(kLcr, 0);
  out(kFcr, 1);
  EXPECT_EQ(in(kIir) >> 6, 3);  // Working FIFOs.
  // Not one of the 16550A's successors, which these writes would wake.
  out(kLcr, 0x80);
  EXPECT_NE(in(2), 0);
  out(kLcr, 0);
  out(kFcr, 1);
  EXPECT_EQ(in(kIir) >> 5, 6);
  out(kLcr, 0x80);
  out(kFcr, 0x21);
  EXPECT_EQ(in(kIir) >> 5, 6);  // 7 would be a 16750.
  out(kLcr, 0);
  out(kIer, 0x40);
  EXPECT_EQ(in(kIer) & 0x40, 0);  // Not an XScale port.
}

TEST_F(UartTest, EnablingTheEmptyInterruptRaisesItAgainAndAgain) {  // Linux's THRE test.
  for (int i = 0; i < 2; ++i) {
    out(kIer, 0x02);
    EXPECT_TRUE(irq_.high());
    EXPECT_EQ(interrupt_id(), kEmpty);
    EXPECT_FALSE(irq_.high());  // Reading it acknowledged it.
    EXPECT_EQ(interrupt_id(), kNoInterrupt);
    out(kIer, 0);
  }
}

TEST_F(UartTest, BytesReachTheHostInOrder) {
  for (const char c : std::string("Linux version 6.1\r\n")) ASSERT_TRUE(send(c));
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "Linux version 6.1\r\n");
  EXPECT_EQ(uart_.counters().transmitted_bytes, 19u);
}

TEST_F(UartTest, DivisorLatchIsNotTheDataRegister) {
  out(kLcr, 0x83);
  out(kData, 0x0c);
  out(kIer, 0x01);
  EXPECT_EQ(in(kData), 0x0c);
  EXPECT_EQ(in(kIer), 0x01);
  out(kLcr, 0x03);
  EXPECT_EQ(in(kIer), 0);
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "");
}

TEST_F(UartTest, HostThatDoesNotReadHoldsTheGuestBackAndLosesNothing) {
  out(kFcr, 1);
  host_->set_room(0);
  std::string sent;
  for (int i = 0; i < 1000; ++i) {
    const char c = static_cast<char>('a' + i % 26);
    if (send(c)) sent += c;
    loop_.run_until_idle();
  }
  EXPECT_EQ(sent.size(), 33u);  // The port's ring and the byte that waits in the FIFO.
  EXPECT_EQ(in(kLsr)&kLsrEmpty, 0);
  out(kIer, 0x02);
  EXPECT_FALSE(irq_.high());

  host_->give_room();
  loop_.run_until_idle();
  EXPECT_EQ(in(kLsr)&kLsrEmpty, kLsrEmpty);
  EXPECT_TRUE(irq_.high());
  EXPECT_EQ(interrupt_id(), kEmpty);
  EXPECT_EQ(host_->output(), sent);
  EXPECT_EQ(uart_.counters().lost_bytes, 0u);
}

TEST_F(UartTest, FloodOfAGuestThatIgnoresThreLosesOnlyWhatTheChipWould) {
  out(kFcr, 1);
  host_->set_room(0);
  for (int i = 0; i < 10'000; ++i) out(kData, 'x');
  loop_.run_until_idle();
  EXPECT_EQ(uart_.counters().lost_bytes, 10'000u - 32 - 16);
  host_->give_room();
  loop_.run_until_idle();
  EXPECT_EQ(host_->output().size(), 48u);
}

TEST_F(UartTest, DriverThatDoesNotReadTheIdentificationGetsAnEdgeForEachByte) {
  out(kIer, 0x02);
  const uint32_t before = irq_.rising_edges();
  for (int i = 0; i < 5; ++i) out(kData, 'x');
  EXPECT_EQ(irq_.rising_edges(), before + 5);
}

TEST_F(UartTest, InputLongerThanFifoAndRingArrivesWholeAndInOrder) {
  std::string typed;
  for (int i = 0; i < 500; ++i) typed += static_cast<char>('0' + i % 75);
  out(kFcr, 0xc1);
  out(kIer, 0x01);
  host_->type(typed);
  EXPECT_TRUE(irq_.high());
  std::string got;
  for (int i = 0; i < 1000 && got.size() < typed.size(); ++i) {
    got += receive_all();
    loop_.run_until_idle();
  }
  EXPECT_EQ(got, typed);
  EXPECT_FALSE(irq_.high());
  EXPECT_EQ(uart_.counters().overruns, 0u);
}

TEST_F(UartTest, TriggerLevelTellsReceiveFromTimeout) {
  out(kFcr, 0xc1);  // 14 bytes.
  out(kIer, 0x01);
  host_->type("0123456789abc");
  EXPECT_EQ(interrupt_id(), kTimeout);
  host_->type("d");
  EXPECT_EQ(interrupt_id(), kReceive);
  in(kData);
  EXPECT_EQ(interrupt_id(), kTimeout);
  receive_all();
  EXPECT_EQ(interrupt_id(), kNoInterrupt);
}

TEST_F(UartTest, PollingGuestThatNeverTouchesTheModemLinesGetsInput) {
  host_->type("ok");
  EXPECT_EQ(receive_all(), "ok");
}

TEST_F(UartTest, InputTypedBeforeTheDriverIsUpSurvivesItsCleaning) {
  host_->type("root\n");
  // What Linux does before it opens the port: autoconfig(), then startup().
  out(kMcr, 0x1a);
  out(kMcr, 0);
  out(kFcr, 1);
  out(kFcr, 7);
  out(kFcr, 0);
  for (int i = 0; i < 2; ++i)
    for (const uint64_t offset : {kLsr, kData, kIir, kMsr}) in(offset);
  out(kFcr, 0xc1);
  out(kMcr, 0x0b);
  out(kIer, 0x05);
  EXPECT_TRUE(irq_.high());
  EXPECT_EQ(receive_all(), "root\n");
}

TEST_F(UartTest, InputSurvivesFifosSwitchedWithTheInterruptOnAndAPortClosedAndOpened) {
  out(kMcr, 0x08);
  host_->type("typed ahead of everybody");
  // As Linux's set_termios().
  out(kIer, 0x05);
  out(kFcr, 0x01);
  out(kFcr, 0x81);
  EXPECT_EQ(in(kData), 't');
  // shutdown(), then startup().
  out(kMcr, 0x08);
  out(kIer, 0);
  out(kFcr, 7);
  out(kFcr, 0);
  for (int i = 0; i < 3; ++i)
    for (const uint64_t offset : {kLsr, kData, kIir, kMsr})
      EXPECT_EQ(in(offset) & 1, offset == kIir);
  out(kIer, 0x05);
  out(kFcr, 0x81);
  EXPECT_EQ(receive_all(), "yped ahead of everybody");
}

TEST_F(UartTest, LoopbackReturnsWhatWasSentAndShowsNothingToTheHost) {
  out(kFcr, 1);
  out(kMcr, 0x10);
  for (int i = 0; i < 17; ++i) out(kData, static_cast<uint8_t>(i));
  EXPECT_EQ(in(kLsr)&kLsrOverrun, kLsrOverrun);
  EXPECT_EQ(in(kLsr)&kLsrOverrun, 0);  // Reading clears it.
  for (int i = 0; i < 16; ++i) EXPECT_EQ(in(kData), i);
  EXPECT_EQ(in(kLsr)&kLsrReady, 0);
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "");
}

TEST_F(UartTest, LineErrorComesBeforeEverythingElse) {
  out(kMcr, 0x10);
  out(kIer, 0x0f);
  out(kData, 1);
  out(kData, 2);
  EXPECT_EQ(interrupt_id(), kLine);
  in(kLsr);
  EXPECT_EQ(interrupt_id(), kReceive);
  in(kData);
  EXPECT_EQ(interrupt_id(), kEmpty);
  EXPECT_EQ(interrupt_id(), 0x00);  // Loopback took the modem lines down.
  in(kMsr);
  EXPECT_EQ(interrupt_id(), kNoInterrupt);
}

TEST_F(UartTest, WideAndStrayAccessesAreByteAccesses) {
  const std::array<uint8_t, 8> wide = {'A', 0, 1, 3, 8, 0, 0, 0x5a};
  uart_.bus_write(0, wide);
  EXPECT_EQ(in(kScr), 0x5a);
  EXPECT_EQ(in(kLcr), 3);
  std::array<uint8_t, 8> read{};
  uart_.bus_read(0, read);
  EXPECT_EQ(read[7], 0x5a);
  uart_.bus_read(4, read);  // Runs past the last register.
  EXPECT_EQ(read[7], 0xff);
  loop_.run_until_idle();
  EXPECT_EQ(host_->output(), "A");
}

TEST_F(UartTest, ResetForgetsTheRegistersButNotTheInput) {
  out(kIer, 0x0f);
  out(kScr, 0x12);
  out(kLcr, 0x80);
  ASSERT_TRUE(run_task(uart_.reset()));
  EXPECT_FALSE(irq_.high());
  EXPECT_EQ(in(kScr), 0);
  EXPECT_EQ(in(kIer), 0);
  EXPECT_EQ(in(kIir), kNoInterrupt);
  EXPECT_EQ(in(kLsr), kLsrEmpty);
  host_->type("after");
  EXPECT_EQ(receive_all(), "after");
}

TEST_F(UartTest, TwoVcpusAndTheLoopShareThePortAndLoseNothing) {
  constexpr size_t kBytes = 2'000;
  const std::string typed(kBytes, 'i');
  std::atomic<bool> give_up{false};
  std::atomic<size_t> received{0};
  std::atomic<int> running{2};
  out(kFcr, 0x01);
  auto writer = loop::Thread::create({.name = "writer"}, [&] {
    for (size_t sent = 0; sent < kBytes && !give_up;) sent += send('o') ? 1 : 0;
    --running;
  });
  auto reader = loop::Thread::create({.name = "reader"}, [&] {
    out(kIer, 0x03);
    while (received < kBytes && !give_up) {
      in(kIir);
      received += receive_all().size();
    }
    --running;
  });
  ASSERT_TRUE(writer);
  ASSERT_TRUE(reader);
  host_->type(typed);
  const int64_t deadline_ns = loop::MonotonicClock().now_ns() + 60'000'000'000;
  while (running > 0) {
    loop_.loop().run_once(loop::EventLoop::Wait::kNo);
    if (loop::MonotonicClock().now_ns() > deadline_ns) give_up = true;
  }
  writer->join();
  reader->join();
  loop_.run_until_idle();
  EXPECT_EQ(received, kBytes);
  EXPECT_EQ(host_->output(), std::string(kBytes, 'o'));
  EXPECT_EQ(uart_.counters().lost_bytes, 0u);
}

}  // namespace
}  // namespace skiff::devices
