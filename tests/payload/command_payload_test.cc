// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff run` from end to end, with guests of a few instructions: how machines begin and end.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"
#include "tests/payload/payload_elf.h"

namespace skiff::payload {
namespace {

using guest::Arguments;
using guest::Outcome;
using guest::run_skiff;
using guest::ScratchFile;
using guest::ScratchPath;
using guest::SkiffProcess;

class Kernel {
 public:
  explicit Kernel(const std::vector<uint8_t>& file)
      : file_("kernel", std::as_bytes(std::span(file))) {}
  Arguments run(const Arguments& more = {}) const {
    return guest::operator+({"run", "--kernel", file_.path()}, more);
  }

 private:
  ScratchFile file_;
};

Kernel pvh(const Code& code) { return Kernel(pvh_elf(code)); }

// Passes on what COM1 brings to COM1, until 'q' comes; then exits with status 1.
Code echo() {
  return Code{
             0x66, 0xba, 0xfd, 0x03,  // again: mov dx, 0x3fd
             0xec,                    // in al, dx
             0xa8, 0x01,              // test al, 1
             0x74, 0xf7,              // jz again
             0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
             0xec,                    // in al, dx
             0xee,                    // out dx, al
             0x3c, 'q',               // cmp al, 'q'
             0x75, 0xed,              // jne again
         } +
         debug_exit(0);
}

// Resets the machine by `reset`, and the second time exits with status 2 << 1 | 1.
Code reset_once(const Code& reset) {
  const Code count = {0xfe, 0x05, 0x00, 0x00, 0x20, 0x00};          // inc byte [0x200000]
  const Code compare = {0x80, 0x3d, 0x00, 0x00, 0x20, 0x00, 0x02};  // cmp byte [0x200000], 2
  const Code body = reset + halt();
  return count + compare + Code{0x74, static_cast<uint8_t>(body.size())} + body + debug_exit(2);
}

TEST(DebugExit, GivesTheStatusByQemusFormula) {
  EXPECT_EQ(run_skiff(pvh(debug_exit(0)).run()).status, 1);
  EXPECT_EQ(run_skiff(pvh(debug_exit(21)).run()).status, 43);
  EXPECT_EQ(run_skiff(pvh(out8(0x501, 3) + halt()).run()).status, 7);
}

TEST(Multiboot, AFlatFileWithAddressFieldsRuns) {
  EXPECT_EQ(run_skiff(Kernel(multiboot_file(debug_exit(5))).run()).status, 11);
}

TEST(Multiboot, TheGuestFindsTheMagicInEax) {
  const Code check = Code{0x3d, 0x02, 0xb0, 0xad, 0x2b} +  // cmp eax, 0x2badb002
                     Code{0x74, 0x0a} + debug_exit(1) + debug_exit(2);
  EXPECT_EQ(run_skiff(Kernel(multiboot_file(check)).run()).status, 5);
}

TEST(PowerOff, IsStatusZero) {
  EXPECT_EQ(run_skiff(pvh(out16(0x604, 0x3400) + halt()).run()).status, 0);
}

TEST(TripleFault, IsACrashThatShowsTheRegisters) {
  // ud2 without an interrupt table.
  const Outcome outcome = run_skiff(pvh({0x0f, 0x0b}).run());
  EXPECT_EQ(outcome.status, 121);
  EXPECT_NE(outcome.err.find("RIP="), std::string::npos) << outcome.err;
}

TEST(PvPanic, IsACrash) {
  const Outcome outcome = run_skiff(pvh(out8(0x505, 1) + halt()).run());
  EXPECT_EQ(outcome.status, 121);
  EXPECT_NE(outcome.err.find("panicked"), std::string::npos) << outcome.err;
}

class Reset : public ::testing::TestWithParam<Code> {};

TEST_P(Reset, RestartsTheMachineWithItsKernelByDefault) {
  EXPECT_EQ(run_skiff(pvh(reset_once(GetParam())).run()).status, 5);
}

TEST_P(Reset, EndsTheMachineIfAskedTo) {
  EXPECT_EQ(run_skiff(pvh(reset_once(GetParam())).run({"--on-reset", "exit"})).status, 0);
}

INSTANTIATE_TEST_SUITE_P(Ways, Reset, ::testing::Values(out8(0x64, 0xfe), out8(0xcf9, 0x06)),
                         [](const auto& param) {
                           return param.index == 0 ? "KeyboardController" : "ResetPort";
                         });

TEST(Serial, PassesBytesBothWays) {
  const Kernel kernel = pvh(echo());
  SkiffProcess process(kernel.run({"--serial", "stdio"}));
  process.write("hello, serial port");
  EXPECT_TRUE(process.wait_for_output("hello, serial port")) << process.transcript();
  process.write("q");
  EXPECT_EQ(process.finish().status, 1);
}

TEST(Serial, InputIsNotLostHoweverMuchComesAtOnce) {
  const Kernel kernel = pvh(echo());
  SkiffProcess process(kernel.run({"--serial", "stdio"}));
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "line " + std::to_string(i) + "\n";
  process.write(text + "q");
  const Outcome outcome = process.finish();
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  EXPECT_TRUE(outcome.out == text + "q") << outcome.out.size() << " bytes came back";
}

TEST(DebugConsole, TakesWhatTheGuestWrites) {
  const Code code = out8(0xe9, 'h') + out8(0xe9, 'i') + debug_exit(0);
  const Outcome outcome = run_skiff(pvh(code).run({"--serial", "null", "--debugcon", "stdio"}));
  EXPECT_EQ(outcome.out, "hi");
  EXPECT_EQ(outcome.status, 1);
}

TEST(ConfigFile, SaysTheSameAsTheCommandLine) {
  const std::vector<uint8_t> elf = pvh_elf(debug_exit(9));
  const ScratchFile kernel("config-kernel", std::as_bytes(std::span(elf)));
  const std::string json = "{\"kernel\": \"" + kernel.path() + "\", \"memory\": \"16M\"}";
  const ScratchFile config("config.json", std::as_bytes(std::span(json)));
  EXPECT_EQ(run_skiff({"run", "--config", config.path()}).status, 19);
}

TEST(Stopping, ASignalEndsAGuestThatDoesNotListenToTheButton) {
  const Kernel kernel = pvh(out8(0x3f8, '!') + halt());
  SkiffProcess process(kernel.run());
  ASSERT_TRUE(process.wait_for_output("!"));
  process.signal(SIGTERM);
  EXPECT_EQ(process.finish().status, 123);
}

TEST(Stopping, TheTimeoutEndsAGuestThatDoesNothing) {
  const Outcome outcome = run_skiff(pvh(halt()).run({"--timeout", "1"}));
  EXPECT_EQ(outcome.status, 123);
  EXPECT_NE(outcome.err.find("--timeout"), std::string::npos) << outcome.err;
}

TEST(Control, PausesResumesResetsAndQuits) {
  const ScratchPath socket("control.sock");
  const Kernel kernel = pvh(out8(0x3f8, '!') + halt());
  SkiffProcess process(kernel.run({"--control", socket.path()}));
  ASSERT_TRUE(process.wait_for_output("!"));
  guest::ControlClient client(socket.path());
  EXPECT_NE(client.ask("status").find("\"running\""), std::string::npos);
  EXPECT_NE(client.ask("pause").find("true"), std::string::npos);
  EXPECT_NE(client.ask("status").find("\"paused\""), std::string::npos);
  EXPECT_NE(client.ask("resume").find("true"), std::string::npos);
  EXPECT_NE(client.ask("reset").find("true"), std::string::npos);
  EXPECT_TRUE(process.wait_for_output("!"));  // The guest has begun again.
  EXPECT_NE(client.ask("status").find("\"resets\":1"), std::string::npos);
  client.ask("quit");
  EXPECT_EQ(process.finish().status, 123);
}

TEST(ManyVcpus, AMachineWith255OfThemStartsAndEnds) {
  EXPECT_EQ(run_skiff(pvh(debug_exit(0)).run({"--cpus", "255"})).status, 1);
}

TEST(RealTime, VcpusCanBePinnedAndMemoryLocked) {
  const Outcome outcome = run_skiff(
      pvh(debug_exit(0))
          .run({"--cpus", "2,pin=0,sched=fifo:10", "--memory", "16M,prealloc=on,mlock=on"}));
  EXPECT_EQ(outcome.status, 1) << outcome.err;
}

}  // namespace
}  // namespace skiff::payload
