// SPDX-License-Identifier: GPL-2.0-or-later
// Disks that come and go under a stock kernel, and machines that end while disks are written.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "loop/unique_fd.h"
#include "tests/guest/disks.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kOk = "\"ok\":true";
constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kBlockBytes = 64 << 10;
// The guest may run under software emulation.
constexpr const char* kPatience = R"(, "timeout": 120)";

// Runs what it is told over its console.
constexpr const char* kAgent = R"sh(
stty -echo
appears() { until [ -b $1 ]; do sleep 0.05; done; echo $1 APPEARED; }
vanishes() { while [ -b $1 ]; do sleep 0.05; done; echo $1 VANISHED; }
fill() {
  yes skiff-$2 | dd of=/dev/vd$2 bs=64k seek=$1 iflag=fullblock oflag=direct 2>&1 |
    while read -r told; do echo $2 $told; done
}
echo AGENT LISTENS
while read -r line; do eval "$line"; done
)sh";

class AgentGuest {
 public:
  explicit AgentGuest(const Arguments& more = {})
      : initrd_(kAgent),
        skiff_(script_guest(initrd_) + Arguments{"--cpus", "2", "--control", socket_.path()} +
               more) {}
  bool has_booted() { return skiff_.wait_for_output("AGENT LISTENS"); }
  // `said`: what the guest prints because of it.
  ::testing::AssertionResult run(const std::string& command, const std::string& said) {
    skiff_.write(command + "\n");
    if (skiff_.wait_for_output(said)) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "no " << said << " in\n" << skiff_.transcript();
  }
  std::string control(const std::string& command, const std::string& members = "") {
    if (!control_) control_ = std::make_unique<ControlClient>(socket_.path());
    return control_->ask(command, members);
  }
  std::string add(const std::string& path) {
    return control("add-disk", R"("disk": ")" + disk(path) + R"(")");
  }
  std::string remove(const std::string& which, const std::string& more = "") {
    return control("remove-disk", R"("disk": ")" + which + R"(")" + kPatience + more);
  }
  SkiffProcess& skiff() { return skiff_; }

 private:
  const ScratchPath socket_{"control"};
  const ScriptInitrd initrd_;
  SkiffProcess skiff_;
  std::unique_ptr<ControlClient> control_;
};

// Does anybody hold a lock on the file?
bool is_locked(const std::string& path) {
  const loop::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct flock all = {};
  all.l_type = F_WRLCK;
  all.l_whence = SEEK_SET;
  return ::fcntl(fd.get(), F_OFD_SETLK, &all) != 0;
}

size_t open_files(pid_t pid) {
  const std::filesystem::directory_iterator fds("/proc/" + std::to_string(pid) + "/fd");
  return static_cast<size_t>(std::distance(begin(fds), end(fds)));
}

// How many blocks dd said it had written to the disk with this letter, at last.
size_t blocks_told(const std::string& output, char letter) {
  const std::regex line(std::string(1, letter) + R"( (\d+)\+\d+ records out)");
  size_t blocks = 0;
  for (std::sregex_iterator at(output.begin(), output.end(), line), end; at != end; ++at)
    blocks = std::stoul((*at)[1]);
  return blocks;
}

// What fill() writes.
std::string filling(char letter) {
  std::string block;
  for (const std::string word = std::string("skiff-") + letter + "\n"; block.size() < kBlockBytes;)
    block += word;
  return block;
}

TEST(Hotplug, DiskComesAndGoesTwentyTimes) {
  const ScratchFile file("comes", kMiB);
  AgentGuest guest;
  ASSERT_TRUE(guest.has_booted()) << guest.skiff().transcript();
  size_t files_after_first = 0;
  for (int round = 1; round <= 20; ++round) {
    const std::string number = std::to_string(round);
    ASSERT_THAT(guest.add(file.path()), HasSubstr(kOk)) << round;
    ASSERT_TRUE(guest.run("appears /dev/vda", "/dev/vda APPEARED"));
    EXPECT_TRUE(is_locked(file.path()));
    ASSERT_TRUE(
        guest.run("dd if=/dev/urandom of=/noise bs=64k count=16 2>/dev/null;"
                  "cat /noise > /dev/vda; sync; echo 1 > /proc/sys/vm/drop_caches;"
                  "[ $(md5sum < /noise | cut -c-32) = $(md5sum < /dev/vda | cut -c-32) ] &&"
                  " echo READ BACK; echo " +
                      number + " IS $(md5sum < /noise)",
                  number + " IS "));
    ASSERT_THAT(guest.remove(file.path()), HasSubstr(kOk)) << round << guest.skiff().transcript();
    ASSERT_TRUE(guest.run("vanishes /dev/vda", "/dev/vda VANISHED"));
    EXPECT_FALSE(is_locked(file.path()));
    EXPECT_THAT(guest.skiff().transcript(),
                HasSubstr("READ BACK\r\n" + number + " IS " + md5_of_file(file.path())));
    if (round == 1) files_after_first = open_files(guest.skiff().pid());
  }
  EXPECT_EQ(open_files(guest.skiff().pid()), files_after_first);
  EXPECT_THAT(guest.remove("disk19"), HasSubstr("No disk"));
  guest.skiff().write("poweroff -f\n");
  EXPECT_EQ(guest.skiff().finish().status, 0);
}

TEST(Hotplug, DiskIsRemovedWhileItIsWrittenAndWhileTheMachineIsPaused) {
  const ScratchFile boot("boot", kMiB);
  const ScratchFile data("data", 1024 * kMiB);
  AgentGuest guest(Arguments{"--disk", disk(boot.path(), ",serial=BOOT")});
  ASSERT_TRUE(guest.has_booted()) << guest.skiff().transcript();

  // A disk that is added while nobody can see it is seen as soon as somebody can.
  ASSERT_THAT(guest.control("pause"), HasSubstr(kOk));
  ASSERT_THAT(guest.add(data.path()), AllOf(HasSubstr(kOk), HasSubstr("disk1")));
  EXPECT_THAT(guest.control("remove-disk", R"("disk": "disk1", "timeout": 1)"),
              AllOf(HasSubstr("paused"), HasSubstr("has not given it up within 1 s")));
  ASSERT_THAT(guest.control("resume"), HasSubstr(kOk));
  // It hears that it is to give it up as well, and does.
  ASSERT_TRUE(guest.run("vanishes /dev/vdb", "/dev/vdb VANISHED"));
  while (guest.control("status").find("disk1") != std::string::npos) continue;

  ASSERT_THAT(guest.add(data.path()), HasSubstr(kOk));
  ASSERT_TRUE(guest.run("appears /dev/vdb", "/dev/vdb APPEARED"));
  ASSERT_TRUE(guest.run("fill 0 b & echo FILLING", "FILLING"));
  while (data.read(20 * kBlockBytes, 1) != "s")
    ASSERT_THAT(guest.control("status"), HasSubstr("\"running\""));
  ASSERT_THAT(guest.remove("disk2"), HasSubstr(kOk)) << guest.skiff().transcript();
  ASSERT_TRUE(guest.skiff().wait_for_output("records out")) << guest.skiff().transcript();
  const size_t blocks = blocks_told(guest.skiff().transcript(), 'b');
  EXPECT_GE(blocks, 20u);
  for (size_t i = 0; i < blocks; ++i)
    ASSERT_TRUE(data.read(i * kBlockBytes, kBlockBytes) == filling('b')) << i << " of " << blocks;
  EXPECT_FALSE(is_locked(data.path()));

  // Without asking: a guest that looks finds that it has gone, and its driver gets out of it.
  ASSERT_THAT(guest.remove("BOOT", R"(, "force": true)"), HasSubstr(kOk));
  ASSERT_TRUE(guest.run("vanishes /dev/vda", "/dev/vda VANISHED"));
  EXPECT_FALSE(is_locked(boot.path()));

  // What is there at a reset stays.
  ASSERT_THAT(guest.add(data.path()), HasSubstr(kOk));
  ASSERT_TRUE(guest.run("appears /dev/vda", "/dev/vda APPEARED"));
  ASSERT_THAT(guest.control("reset"), HasSubstr(kOk));
  ASSERT_TRUE(guest.has_booted()) << guest.skiff().transcript();
  ASSERT_TRUE(guest.run("head -c 7 /dev/vda; echo; echo READ", "skiff-b\r\nREAD"));
  ASSERT_THAT(guest.remove(data.path()), HasSubstr(kOk));
  ASSERT_TRUE(guest.run("vanishes /dev/vda", "/dev/vda VANISHED"));
  EXPECT_THAT(guest.control("status"), HasSubstr("\"disks\":[]"));
  guest.skiff().write("poweroff -f\n");
  EXPECT_EQ(guest.skiff().finish().status, 0);
}

// Whatever the guest was told is written is in the files.
TEST(Ending, NothingThatWasWrittenToSeveralDisksIsLostByResetAndPowerOff) {
  constexpr size_t kSecondHalf = 256 * kMiB / kBlockBytes;
  const std::string letters = "abc";
  std::vector<std::unique_ptr<ScratchFile>> files;
  Arguments arguments;
  for (const char letter : letters) {
    files.push_back(std::make_unique<ScratchFile>(std::string("disk-") + letter, 512 * kMiB));
    arguments = arguments + Arguments{"--disk", disk(files.back()->path())};
  }
  AgentGuest guest(arguments);
  ASSERT_TRUE(guest.has_booted()) << guest.skiff().transcript();
  for (const size_t first : {size_t{0}, kSecondHalf}) {
    const size_t before = guest.skiff().transcript().size();
    for (const char letter : letters)
      guest.skiff().write("fill " + std::to_string(first) + " " + letter + " &\n");
    for (const auto& file : files)
      while (file->read((first + 10) * kBlockBytes, 1) != "s")
        ASSERT_THAT(guest.control("status"), HasSubstr("\"running\""));
    // Each says how far it is, and all are at it when the machine goes.
    guest.skiff().write("killall -USR1 dd\n");
    for (const char letter : letters)
      while (blocks_told(guest.skiff().transcript().substr(before), letter) == 0)
        ASSERT_TRUE(guest.skiff().wait_for_output(" records out"));
    const std::string said = guest.skiff().transcript().substr(before);
    if (first == 0) {
      guest.skiff().write("reboot -f\n");
      ASSERT_TRUE(guest.has_booted()) << guest.skiff().transcript();
    } else {
      guest.skiff().write("poweroff -f\n");
      EXPECT_EQ(guest.skiff().finish().status, 0);
    }
    for (size_t i = 0; i < letters.size(); ++i) {
      const size_t blocks = blocks_told(said, letters[i]);
      EXPECT_GT(blocks, 0u) << said;
      for (size_t at = first; at < first + blocks; ++at)
        ASSERT_TRUE(files[i]->read(at * kBlockBytes, kBlockBytes) == filling(letters[i]))
            << letters[i] << " " << at << " of " << blocks;
    }
  }
}

}  // namespace
}  // namespace skiff::guest
