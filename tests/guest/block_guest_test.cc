// SPDX-License-Identifier: GPL-2.0-or-later
// The block layer under a guest: its engines, and what the user does to a disk in use.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/guest/disks.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kOk = "\"ok\":true";

// Each engine has a disk of its own; a guest copies one to another, all of them at the same time.
TEST(Engines, AllServeOneGuest) {
  constexpr std::array kEngines = {"sync",      "worker",   "threads", "posix-aio",
                                   "linux-aio", "io_uring", "auto"};
  constexpr uint64_t kBytes = 8 << 20;
  std::vector<std::unique_ptr<ScratchFile>> files;
  std::vector<std::unique_ptr<LoopDevice>> devices;
  Arguments arguments =
      exec_guest(
          "for d in a b c d e f g; do md5sum < /dev/vd$d; done;"
          "for d in a b c d e f g; do dd if=/dev/vdg of=/dev/vd$d bs=64k count=16 seek=64"
          " conv=fsync 2>/dev/null & done; wait") +
      Arguments{"--cpus", "4"};
  std::string expected;
  for (const std::string engine : kEngines) {
    files.push_back(std::make_unique<ScratchFile>(engine));
    files.back()->fill_with_noise(kBytes);
    expected += md5_of_file(files.back()->path()) + "  -\n";
    std::string path = files.back()->path();
    const bool direct = engine == "linux-aio";
    if (direct && !can_do_direct_io(path)) {
      devices.push_back(std::make_unique<LoopDevice>(*files.back()));
      path = devices.back()->path();
    }
    arguments = arguments +
                Arguments{"--disk", disk(path, ",engine=" + engine + (direct ? ",direct=on" : ""))};
  }
  const std::string first_mib = files.back()->read(0, 1 << 20);
  const Outcome outcome = run_skiff(arguments);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, expected);
  for (const auto& file : files)
    EXPECT_TRUE(file->read(4 << 20, 1 << 20) == first_mib) << file->path();
}

TEST(Disk, ThatStopsOnAnErrorGoesOnWhenTheMachineIsResumed) {
  const ScratchFile file("stops", 1 << 20);
  const ScratchPath socket("control");
  SkiffProcess skiff(
      exec_guest(
          "echo READY; dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct && echo DONE") +
      Arguments{"--control", socket.path(), "--disk",
                disk(file.path(), ",werror=stop,fault=op=write:error=ENOSPC")});
  ASSERT_TRUE(skiff.wait_for_output("READY")) << skiff.transcript();
  ControlClient control(socket.path());
  std::string status;
  do {
    status = control.ask("status");
    ASSERT_THAT(status, HasSubstr(kOk));
  } while (status.find("stop_reason") == std::string::npos);
  EXPECT_THAT(status, HasSubstr("No space left"));
  while (status.find("\"paused\"") == std::string::npos) status = control.ask("status");

  // It would only stop again.
  EXPECT_THAT(control.ask("resume"), HasSubstr(kOk));
  do status = control.ask("status");
  while (status.find("\"paused\"") == std::string::npos);
  EXPECT_THAT(control.ask("set-faults", R"("disk": "disk0", "rules": "")"), HasSubstr(kOk));
  EXPECT_THAT(control.ask("resume"), HasSubstr(kOk));
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("DONE"));
}

TEST(Disk, GrowsAndShrinksWhileTheGuestUsesIt) {
  const ScratchFile file("grows", 1 << 20);
  const ScratchPath socket("control");
  SkiffProcess skiff(exec_guest("size() { cat /sys/block/vda/size; };"
                                "echo READY $(size); while [ $(size) = 2048 ]; do sleep 0.05; done;"
                                "echo GROWN $(size); printf end | dd of=/dev/vda bs=512 seek=16383"
                                " conv=fsync; while [ $(size) = 16384 ]; do sleep 0.05; done;"
                                "echo SHRUNK $(size)") +
                     Arguments{"--control", socket.path(), "--disk", disk(file.path())});
  ASSERT_TRUE(skiff.wait_for_output("READY 2048")) << skiff.transcript();
  ControlClient control(socket.path());
  EXPECT_THAT(control.ask("resize-disk", R"("disk": "disk0", "size": "8M")"), HasSubstr(kOk));
  ASSERT_TRUE(skiff.wait_for_output("GROWN 16384")) << skiff.transcript();
  EXPECT_THAT(control.ask("resize-disk", R"("disk": "disk0", "size": "7")"),
              AllOf(HasSubstr("\"ok\":false"), HasSubstr("512")));
  while (file.read((8 << 20) - 512, 3) != "end")
    ASSERT_THAT(control.ask("status"), HasSubstr("\"running\""));
  EXPECT_THAT(control.ask("resize-disk", R"("disk": "disk0", "size": "4M")"), HasSubstr(kOk));
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("SHRUNK 8192"));
  EXPECT_EQ(std::filesystem::file_size(file.path()), uintmax_t{4} << 20);
}

}  // namespace
}  // namespace skiff::guest
