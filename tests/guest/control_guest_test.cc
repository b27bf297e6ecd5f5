// SPDX-License-Identifier: GPL-2.0-or-later
// A running guest, steered over the control socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <string>

#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kOk = "\"ok\":true";

TEST(ControlSocket, PausesResumesResetsAndEndsAGuest) {
  const ScratchPath socket("control");
  const ScriptInitrd initrd("echo BOOTED; while :; do echo tick; sleep 0.05; done");
  SkiffProcess skiff(script_guest(initrd) + Arguments{"--cpus", "2", "--control", socket.path()});
  ASSERT_TRUE(skiff.wait_for_output("BOOTED")) << skiff.transcript();
  ASSERT_TRUE(skiff.wait_for_output("tick")) << skiff.transcript();

  ControlClient control(socket.path());
  EXPECT_THAT(control.ask("status"), AllOf(HasSubstr(kOk), HasSubstr("\"state\":\"running\""),
                                           HasSubstr("\"vcpus\":2"), HasSubstr("\"resets\":0")));
  EXPECT_THAT(control.ask("pause"), HasSubstr(kOk));
  EXPECT_THAT(control.ask("status"), HasSubstr("\"state\":\"paused\""));
  // What was on its way arrives; then nothing does.
  skiff.is_silent_for(200);
  EXPECT_TRUE(skiff.is_silent_for(1500));
  EXPECT_THAT(control.ask("resume"), HasSubstr(kOk));
  EXPECT_TRUE(skiff.wait_for_output("tick"));

  EXPECT_THAT(control.ask("reset"), HasSubstr(kOk));
  EXPECT_TRUE(skiff.wait_for_output("BOOTED"));
  EXPECT_THAT(control.ask("status"),
              AllOf(HasSubstr("\"state\":\"running\""), HasSubstr("\"resets\":1")));
  EXPECT_THAT(control.ask("dance"), HasSubstr("Unknown command"));
  EXPECT_THAT(control.ask("quit"), HasSubstr(kOk));
  EXPECT_EQ(skiff.finish().status, 123);
}

TEST(ControlSocket, AnswersWhileTheGuestFloodsAStdoutThatNobodyReads) {
  const ScratchPath socket("control");
  const ScriptInitrd initrd("echo FLOOD; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done");
  SkiffProcess skiff(script_guest(initrd) + Arguments{"--cpus", "2", "--control", socket.path()});
  ASSERT_TRUE(skiff.wait_for_output("FLOOD")) << skiff.transcript();
  // The pipe of the test takes 64 KiB; the guest fills it.
  ControlClient control(socket.path());
  while (skiff.unread_output_bytes() < 60'000) ASSERT_THAT(control.ask("status"), HasSubstr(kOk));
  for (int i = 0; i < 20; ++i) EXPECT_THAT(control.ask("status"), HasSubstr("running"));

  skiff.signal(SIGTERM);
  ASSERT_TRUE(skiff.wait_for_errors("once more")) << skiff.transcript();
  skiff.signal(SIGTERM);
  EXPECT_TRUE(skiff.ends_by_itself());
  EXPECT_EQ(skiff.finish().status, 123);
}

// What opens next must not get their numbers, and the guest's output with them.
TEST(StandardStreams, ThatWereClosedAreNothing) {
  const ScratchPath socket("control");
  const ScriptInitrd initrd("while :; do echo 8 bytes; done");
  SkiffProcess skiff(script_guest(initrd) + Arguments{"--control", socket.path()},
                     {.standard_streams_closed = true, .user = {}});
  ControlClient control(socket.path());
  for (int fd = 0; fd <= 2; ++fd) {
    const std::string link = "/proc/" + std::to_string(skiff.pid()) + "/fd/" + std::to_string(fd);
    EXPECT_EQ(std::filesystem::read_symlink(link), "/dev/null") << fd;
  }
  EXPECT_THAT(control.ask("quit"), HasSubstr(kOk));
  EXPECT_EQ(skiff.finish().status, 123);
}

}  // namespace
}  // namespace skiff::guest
