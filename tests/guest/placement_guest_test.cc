// SPDX-License-Identifier: GPL-2.0-or-later
// Queues of a disk under a guest: how many, in which mode, and on which thread.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/guest/disks.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr const char* kOk = "\"ok\":true";

Json queue_of(ControlClient& control, size_t disk, size_t queue) {
  const Json status = Json::parse(control.ask("status"), nullptr, /*allow_exceptions=*/false);
  const Json::json_pointer where("/disks/" + std::to_string(disk) + "/queues/" +
                                 std::to_string(queue));
  return status.contains(where) ? status[where] : Json::object();
}

std::string home_of(ControlClient& control, size_t disk, size_t queue) {
  return queue_of(control, disk, queue).value("home", "");
}

// Each mode has a disk of its own, with a queue for each vCPU; a guest copies one to all others, a
// part on each vCPU.
TEST(Queues, OneForEachVcpuInEachMode) {
  constexpr std::array kModes = {"iothread", "vcpu", "poll", "auto"};
  constexpr uint64_t kBytes = 8 << 20;
  std::vector<std::unique_ptr<ScratchFile>> files;
  Arguments arguments =
      exec_guest(
          "for d in a b c d; do ls /sys/block/vd$d/mq | wc -l; md5sum < /dev/vd$d; done;"
          "for d in a b c; do for i in 0 1 2 3; do taskset $((1 << i)) dd if=/dev/vdd of=/dev/vd$d"
          " bs=64k count=8 skip=$((8 * i)) seek=$((64 + 8 * i)) oflag=direct 2>/dev/null & done;"
          " done; wait; sync") +
      Arguments{"--cpus", "4"};
  std::string expected;
  for (const std::string mode : kModes) {
    files.push_back(std::make_unique<ScratchFile>(mode));
    files.back()->fill_with_noise(kBytes);
    expected += "4\n" + md5_of_file(files.back()->path()) + "  -\n";
    arguments = arguments + Arguments{"--disk", disk(files.back()->path(), ",submit=" + mode)};
  }
  const std::string first_2_mib = files.back()->read(0, 2 << 20);
  const Outcome outcome = run_skiff(arguments);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, expected);
  for (size_t i = 0; i + 1 < files.size(); ++i)
    EXPECT_TRUE(files[i]->read(4 << 20, 2 << 20) == first_2_mib) << kModes[i];
}

TEST(Queues, ChangeTheirModeWhileTheGuestReadsAndWrites) {
  const ScratchFile file("modes");
  file.fill_with_noise(8 << 20);
  const ScratchPath socket("control");
  SkiffProcess skiff(
      exec_guest("echo READY; m=$(dd if=/dev/vda bs=1M count=4 2>/dev/null | md5sum);"
                 "for round in 1 2 3 4 5 6 7 8; do"
                 " for i in 0 1 2 3; do taskset $((1 << i)) dd if=/dev/vda of=/dev/vda bs=16k"
                 " count=64 skip=$((64 * i)) seek=$((256 + 64 * i)) iflag=direct oflag=direct"
                 " 2>/dev/null & done; wait;"
                 " n=$(dd if=/dev/vda bs=1M skip=4 count=4 iflag=direct 2>/dev/null | md5sum);"
                 " [ \"$m\" = \"$n\" ] || exit 9; echo ROUND; done;"
                 "echo DONE") +
      Arguments{"--cpus", "4", "--control", socket.path(), "--disk",
                disk(file.path(), ",submit=iothread")});
  ASSERT_TRUE(skiff.wait_for_output("READY")) << skiff.transcript();
  ControlClient control(socket.path());
  for (const char* mode : {"vcpu", "poll", "iothread", "vcpu"}) {
    ASSERT_TRUE(skiff.wait_for_output("ROUND")) << skiff.transcript();
    EXPECT_THAT(
        control.ask("set-submit", std::string(R"("disk": "disk0", "submit": ")") + mode + "\""),
        HasSubstr(kOk));
    EXPECT_EQ(queue_of(control, 0, 3).value("mode", ""), mode);
  }
  EXPECT_EQ(home_of(control, 0, 3).substr(0, 4), "vcpu");
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("DONE"));
}

TEST(Queues, SeveralThatStopOnErrorsGoOnWhenTheMachineIsResumed) {
  for (const char* mode : {"iothread", "vcpu"}) {
    const ScratchFile file("stops", 8 << 20);
    const ScratchPath socket("control");
    SkiffProcess skiff(
        exec_guest("echo READY; for i in 0 1 2 3; do taskset $((1 << i)) dd if=/dev/zero"
                   " of=/dev/vda bs=4k count=4 seek=$((4 * i)) oflag=direct 2>/dev/null || exit 9 &"
                   " done; wait; echo DONE") +
        Arguments{"--cpus", "4", "--control", socket.path(), "--disk",
                  disk(file.path(),
                       std::string(",werror=stop,fault=op=write:error=ENOSPC,submit=") + mode)});
    ASSERT_TRUE(skiff.wait_for_output("READY")) << skiff.transcript();
    ControlClient control(socket.path());
    std::string status;
    do {
      status = control.ask("status");
      ASSERT_THAT(status, HasSubstr(kOk));
    } while (status.find("stop_reason") == std::string::npos ||
             status.find("\"paused\"") == std::string::npos);
    EXPECT_THAT(status, HasSubstr("No space left"));
    EXPECT_THAT(control.ask("set-faults", R"("disk": "disk0", "rules": "")"), HasSubstr(kOk));
    EXPECT_THAT(control.ask("resume"), HasSubstr(kOk));
    const Outcome outcome = skiff.finish();
    EXPECT_EQ(outcome.status, 0) << mode << ": " << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("DONE")) << mode;
  }
}

// Linux manages the affinity of these interrupts itself: it moves one when its CPU goes offline.
TEST(Queues, FollowTheirInterruptToAnotherVcpu) {
  const ScratchFile file("follows", 8 << 20);
  const ScratchPath socket("control");
  SkiffProcess skiff(
      exec_guest("irq=$(grep virtio0-req.0 /proc/interrupts | cut -d: -f1 | tr -d ' ');"
                 "at() { cat /proc/irq/$irq/effective_affinity_list; };"
                 "work() { dd if=/dev/vda of=/dev/null bs=4k count=200 iflag=direct 2>/dev/null; };"
                 "work; echo FROM $(at); read _;"
                 "echo 0 > /sys/devices/system/cpu/cpu$(at)/online; work; echo TO $(at); read _") +
      Arguments{"--cpus", "4", "--control", socket.path(), "--disk",
                disk(file.path(), ",queues=1,submit=vcpu")});
  ASSERT_TRUE(skiff.wait_for_output("FROM ")) << skiff.transcript();
  ASSERT_TRUE(skiff.wait_for_output("\n")) << skiff.transcript();
  ControlClient control(socket.path());
  const auto number_after = [&skiff](const std::string& word) {
    const std::string text = skiff.transcript();
    return text.substr(text.find(word) + word.size(), 1);
  };
  const std::string from = number_after("FROM ");
  if (from == "0") GTEST_SKIP() << "Linux chose CPU 0, which does not go offline";
  std::string home;
  for (int i = 0; i < 1000 && home != "vcpu" + from; ++i) home = home_of(control, 0, 0);
  EXPECT_EQ(home, "vcpu" + from);
  skiff.write("\n");
  ASSERT_TRUE(skiff.wait_for_output("TO ")) << skiff.transcript();
  ASSERT_TRUE(skiff.wait_for_output("\n")) << skiff.transcript();
  const std::string to = number_after("TO ");
  EXPECT_NE(to, from);
  for (int i = 0; i < 1000 && home != "vcpu" + to; ++i) home = home_of(control, 0, 0);
  EXPECT_EQ(home, "vcpu" + to);
  skiff.write("\n");
  EXPECT_EQ(skiff.finish().status, 0);
}

}  // namespace
}  // namespace skiff::guest
