// SPDX-License-Identifier: GPL-2.0-or-later
// A command in a guest behaves as one on the host: its status, its streams, its end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstddef>
#include <string>

#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::HasSubstr;

std::string megabytes_of_lines(size_t bytes) {
  std::string text;
  for (size_t line = 0; text.size() < bytes; ++line)
    text += std::to_string(line * 2654435761) + "\n";
  text.resize(bytes);
  return text;
}

TEST(Exec, ReadsAllOfStdinAndKeepsStdoutAndStderrApart) {
  const std::string input = megabytes_of_lines(1 << 20);
  SkiffProcess skiff(exec_guest("md5sum; echo to stderr >&2; exit 3"));
  skiff.write(input);
  skiff.close_input();
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 3);
  EXPECT_EQ(outcome.out, md5_of_text(input) + "  -\n");
  EXPECT_EQ(outcome.err, "to stderr\n");
}

TEST(Exec, SignalOfTheCommandIsItsStatusWhateverItLeftRunning) {
  const Outcome outcome =
      run_skiff(exec_guest("(sleep 1000; echo late) & echo early; kill -TERM $$; sleep 5"));
  EXPECT_EQ(outcome.status, 128 + SIGTERM) << outcome.err;
  EXPECT_EQ(outcome.out, "early\n");
}

TEST(Exec, TenMegabytesOfOutputReachASlowReader) {
  SkiffProcess skiff(exec_guest("seq 1 1500000 | head -c 10485760 > /f; md5sum < /f >&2; cat /f"));
  // Small reads first, so that every queue on the way fills; then as fast as it comes.
  for (int i = 0; i < 2000; ++i) skiff.read_output(512);
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out.size(), 10485760U);
  EXPECT_EQ(outcome.err, md5_of_text(outcome.out) + "  -\n");
}

TEST(Exec, TimesOut) {
  const Outcome outcome =
      run_skiff(with(exec_guest("echo started; sleep 1000"), "--timeout", "30"));
  EXPECT_EQ(outcome.status, 123);
  EXPECT_EQ(outcome.out, "started\n");
  EXPECT_THAT(outcome.err, HasSubstr("30 s (--timeout)"));
}

TEST(Exec, SaysWhatIsMissingInAGuestWithoutAShell) {
  const Outcome outcome = run_skiff(with(exec_guest("true"), "--initrd", image("modules.cpio")));
  EXPECT_EQ(outcome.status, 121);
  EXPECT_THAT(outcome.err, HasSubstr("/bin/sh"));
  EXPECT_THAT(outcome.err, HasSubstr("give a root disk"));
}

TEST(Exec, SaysThatTheGuestEndedBeforeTheCommand) {
  const Outcome outcome = run_skiff(exec_guest("echo before; poweroff -f; sleep 100"));
  EXPECT_EQ(outcome.status, 121);
  EXPECT_EQ(outcome.out, "before\n");
  EXPECT_THAT(outcome.err, HasSubstr("before its command did"));
}

TEST(Exec, StoppedBySignalIsNotTakenForTheCommandsStatus) {
  SkiffProcess skiff(exec_guest("echo READY; sleep 1000"));
  ASSERT_TRUE(skiff.wait_for_output("READY")) << skiff.transcript();
  skiff.signal(SIGTERM);
  EXPECT_EQ(skiff.finish().status, 123);
}

TEST(Exec, WorksWithoutStandardStreamsAndSparesTheDisk) {
  const ScratchFile disk("disk", 1 << 20);
  const std::string before = md5_of_file(disk.path());
  const Outcome outcome =
      run_skiff(exec_guest("cat; echo out; echo err >&2; exit 9") +
                    Arguments{"--disk", "path=" + disk.path() + ",format=raw", "--log", "debug"},
                {.standard_streams_closed = true, .user = {}});
  EXPECT_EQ(outcome.status, 9);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(md5_of_file(disk.path()), before);
}

}  // namespace
}  // namespace skiff::guest
