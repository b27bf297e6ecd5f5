// SPDX-License-Identifier: GPL-2.0-or-later
// How a machine ends and begins again: power-off, reset, panic, power button, signals.
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

// Ends at the first press, which it sees as a key of the keyboard.
constexpr const char* kWaitForPowerButton = R"sh(
for e in /sys/class/input/event*; do
  [ "$(cat $e/device/name)" = "Power Button" ] && button=/dev/input/${e##*/}
done
exec 3<$button
echo LISTENING
dd of=/dev/null bs=24 count=1 <&3 2>/dev/null
echo PRESSED
poweroff -f
)sh";

TEST(Ending, PowerOffIsStatusZero) {
  const ScriptInitrd initrd("echo HELLO; poweroff -f");
  const Outcome outcome = run_skiff(script_guest(initrd));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("HELLO"));
  EXPECT_EQ(outcome.err, "");
}

TEST(Ending, RebootRunsTheGuestAgainWithWhatIsOnItsDisk) {
  const ScratchFile disk("marker", 1 << 20);
  const ScriptInitrd initrd(R"sh(
case $(head -c 4 /dev/vda) in
  done) echo SECOND BOOT on $(nproc); poweroff -f ;;
esac
echo FIRST BOOT on $(nproc)
printf done > /dev/vda
sync
reboot -f
)sh");
  const Outcome outcome =
      run_skiff(script_guest(initrd) +
                Arguments{"--cpus", "2", "--disk", "path=" + disk.path() + ",format=raw"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const size_t first = outcome.out.find("FIRST BOOT on 2");
  ASSERT_NE(first, std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("SECOND BOOT on 2", first), std::string::npos) << outcome.out;
}

TEST(Ending, ResetCanEndTheMachine) {
  const ScriptInitrd initrd("echo ONLY BOOT; reboot -f");
  const Outcome outcome = run_skiff(script_guest(initrd) + Arguments{"--on-reset", "exit"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find("ONLY BOOT"), outcome.out.rfind("ONLY BOOT"));
}

TEST(Ending, PanicIsReportedThroughItsDevice) {
  const ScriptInitrd initrd("echo c > /proc/sysrq-trigger");
  const Outcome outcome = run_skiff(script_guest(initrd));
  EXPECT_EQ(outcome.status, 121) << outcome.out;
  EXPECT_THAT(outcome.out, HasSubstr("Kernel panic"));
  EXPECT_THAT(outcome.err, HasSubstr("panicked"));
}

TEST(Ending, PanicOfAGuestWithoutThatDriverIsTheResetItAsksFor) {
  const ScriptInitrd initrd("echo c > /proc/sysrq-trigger", /*load_modules=*/false);
  const Outcome outcome = run_skiff(script_guest(initrd) + Arguments{"--on-reset", "exit"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("Kernel panic"));
}

TEST(Ending, TripleFaultOfAKernelIsACrash) {
  const ScriptInitrd initrd("reboot -f");
  // Linux takes the last of them.
  const Outcome outcome = run_skiff(script_guest(initrd, "reboot=t"));
  EXPECT_EQ(outcome.status, 121) << outcome.out;
  EXPECT_THAT(outcome.err, HasSubstr("triple fault"));
}

TEST(PowerButton, IsSeenByTheGuestThatListens) {
  const ScratchPath socket("control");
  const ScriptInitrd initrd(kWaitForPowerButton);
  SkiffProcess skiff(script_guest(initrd) + Arguments{"--control", socket.path()});
  ASSERT_TRUE(skiff.wait_for_output("LISTENING")) << skiff.transcript();
  EXPECT_THAT(ControlClient(socket.path()).ask("power-button"), HasSubstr("\"ok\":true"));
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("PRESSED"));
}

TEST(Signals, TheFirstPressesThePowerButtonAndTheSecondStops) {
  const ScriptInitrd initrd("echo DEAF; while :; do sleep 1; done");
  SkiffProcess skiff(script_guest(initrd));
  ASSERT_TRUE(skiff.wait_for_output("DEAF")) << skiff.transcript();
  skiff.signal(SIGTERM);
  ASSERT_TRUE(skiff.wait_for_errors("once more")) << skiff.transcript();
  skiff.signal(SIGTERM);
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 123);
  EXPECT_THAT(outcome.err, HasSubstr("Stopped from outside"));
}

TEST(Signals, InterruptPressesThePowerButtonAsWell) {
  const ScriptInitrd initrd(kWaitForPowerButton);
  SkiffProcess skiff(script_guest(initrd));
  ASSERT_TRUE(skiff.wait_for_output("LISTENING")) << skiff.transcript();
  skiff.signal(SIGINT);
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
}

TEST(Signals, EndAMachineWhoseHostDoesNotFinishADisksRequests) {
  const ScriptInitrd initrd("echo NOT REACHED");
  SkiffProcess skiff(script_guest(initrd, "loglevel=7") +
                     Arguments{"--disk", "path=null:size=1G,,latency=10s,format=raw"});
  // The kernel reads the partition table next, and waits.
  ASSERT_TRUE(skiff.wait_for_output("512-byte logical blocks (1.07 GB/1.00 GiB)\r\n"))
      << skiff.transcript();
  ASSERT_TRUE(skiff.is_silent_for(2000)) << skiff.transcript();
  skiff.signal(SIGTERM);
  skiff.signal(SIGTERM);
  ASSERT_TRUE(skiff.wait_for_errors("Waiting for the host")) << skiff.transcript();
  skiff.signal(SIGTERM);
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 123) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("without waiting"));
}

TEST(Signals, WhatTheGuestFlushedIsOnTheDiskWhenSkiffIsKilled) {
  const ScratchFile disk("flushed", 16 << 20);
  const ScriptInitrd initrd(R"sh(
dd if=/dev/urandom of=/data bs=1M count=8 2>/dev/null
cat /data > /dev/vda
sync
echo FLUSHED $(md5sum < /data)
while :; do sleep 1; done
)sh");
  SkiffProcess skiff(script_guest(initrd) +
                     Arguments{"--disk", "path=" + disk.path() + ",format=raw"});
  ASSERT_TRUE(skiff.wait_for_output("FLUSHED ")) << skiff.transcript();
  ASSERT_TRUE(skiff.wait_for_output(" -")) << skiff.transcript();
  skiff.signal(SIGKILL);
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 128 + SIGKILL);
  EXPECT_THAT(outcome.out, HasSubstr("FLUSHED " + md5_of_text(disk.read(0, 8 << 20))));
}

// The way of a user: kernel, initrd, root=; systemd comes up, and the power button takes it down.
TEST(Systemd, ComesToALoginPromptAndPowersOffWhenAskedTo) {
  SkiffProcess skiff({"run", "--kernel", image("vmlinuz"), "--initrd", image("initrd.img"),
                      "--memory", "1G", "--cpus", "2", "--serial", "stdio", "--timeout", "300",
                      "--cmdline", "console=ttyS0 root=/dev/vda rw", "--disk",
                      "path=" + image("rootfs.img") + ",format=raw"});
  ASSERT_TRUE(skiff.wait_for_output("login: root (automatic login)")) << skiff.transcript();
  ASSERT_TRUE(skiff.wait_for_output("root@skiff:~#")) << skiff.transcript();
  skiff.write("systemctl is-system-running --wait; systemctl --failed --no-legend | wc -l\n");
  ASSERT_TRUE(skiff.wait_for_output("\rrunning\r\n0\r\n")) << skiff.transcript();
  skiff.signal(SIGTERM);
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err << outcome.out;
  EXPECT_THAT(outcome.out, HasSubstr("Power down"));
}

}  // namespace
}  // namespace skiff::guest
