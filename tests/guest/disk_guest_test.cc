// SPDX-License-Identifier: GPL-2.0-or-later
// What a guest's driver does to a disk is what happens to the file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>

#include "tests/guest/disks.h"
#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kDiskBytes = 64 << 20;

struct Way {
  std::string bus;
  bool direct;
};

class WholeDisk : public ::testing::TestWithParam<Way> {};

TEST_P(WholeDisk, IsReadAndWrittenAsItIs) {
  const ScratchFile from("from");
  from.fill_with_noise(kDiskBytes);
  const ScratchFile to("to", kDiskBytes);
  const Way& way = GetParam();
  std::optional<LoopDevice> from_device;
  std::optional<LoopDevice> to_device;
  if (way.direct && !can_do_direct_io(from.path())) {
    from_device.emplace(from);
    to_device.emplace(to);
  }
  const std::string options = ",bus=" + way.bus + ",direct=" + (way.direct ? "on" : "off");
  const Outcome outcome =
      run_skiff(exec_guest("md5sum < /dev/vda; cat /dev/vda > /dev/vdb; sync; "
                           "echo 3 > /proc/sys/vm/drop_caches; md5sum < /dev/vdb; "
                           "cat /sys/block/vdb/size") +
                Arguments{"--cpus", "2"} +
                Arguments{"--disk", disk(from_device ? from_device->path() : from.path(), options),
                          "--disk", disk(to_device ? to_device->path() : to.path(), options)});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const std::string md5 = md5_of_file(from.path());
  EXPECT_EQ(outcome.out, md5 + "  -\n" + md5 + "  -\n131072\n");
  EXPECT_EQ(md5_of_file(to.path()), md5);
}

INSTANTIATE_TEST_SUITE_P(Ways, WholeDisk,
                         ::testing::Values(Way{"pci", false}, Way{"mmio", true}, Way{"pci", true}),
                         [](const auto& param) {
                           return param.param.bus + (param.param.direct ? "_direct" : "_cached");
                         });

TEST(Disk, HasItsSerialRefusesWritesWhenReadOnlyAndGivesBackWhatIsDiscarded) {
  const ScratchFile data("data");
  data.fill_with_noise(kDiskBytes);
  const ScratchFile fixed("fixed");
  fixed.fill_with_noise(1 << 20);
  const std::string before = md5_of_file(fixed.path());
  ASSERT_GE(data.allocated_bytes(), kDiskBytes);
  const Outcome outcome = run_skiff(
      exec_guest("cat /sys/block/vda/serial; echo; cat /sys/block/vda/ro /sys/block/vdb/ro;"
                 "echo destroyed > /dev/vdb && echo WRITTEN;"
                 "dd if=/dev/zero of=/dev/vdb bs=4096 count=1 oflag=direct && echo WRITTEN;"
                 "blkdiscard -o 0 -l 33554432 /dev/vda || exit 3;"
                 "head -c 33554432 /dev/vda | tr -d '\\0' | wc -c") +
      Arguments{"--disk", disk(data.path(), ",serial=SN-42"), "--disk",
                disk(fixed.path(), ",readonly=on")});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "SN-42\n0\n1\n0\n") << outcome.err;
  EXPECT_EQ(md5_of_file(fixed.path()), before);
  EXPECT_LE(data.allocated_bytes(), kDiskBytes / 2 + (1 << 20));
}

TEST(Disk, ThatShrinksGivesTheGuestErrorsAndNothingElse) {
  const ScratchFile file("shrinks");
  file.fill_with_noise(kDiskBytes);
  SkiffProcess skiff(
      exec_guest("echo READY; read go; dd if=/dev/vda of=/dev/null bs=4k skip=8192 count=1 "
                 "iflag=direct && exit 1; dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct "
                 "|| exit 2; exit 7") +
      Arguments{"--disk", disk(file.path())});
  ASSERT_TRUE(skiff.wait_for_output("READY")) << skiff.transcript();
  ASSERT_EQ(::truncate(file.path().c_str(), 1 << 20), 0);
  skiff.write("go\n");
  const Outcome outcome = skiff.finish();
  EXPECT_EQ(outcome.status, 7) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("Input/output error"));
}

TEST(Disk, OfARunningMachineIsRefusedToASecondOne) {
  const ScratchFile file("locked", 1 << 20);
  SkiffProcess first(exec_guest("echo READY; read go; exit 7") +
                     Arguments{"--disk", disk(file.path())});
  ASSERT_TRUE(first.wait_for_output("READY")) << first.transcript();
  for (const char* access : {"", ",readonly=on"}) {
    const Outcome second =
        run_skiff(exec_guest("true") + Arguments{"--disk", disk(file.path(), access)});
    EXPECT_EQ(second.status, 120);
    EXPECT_THAT(second.err, HasSubstr(file.path()));
    EXPECT_THAT(second.err, HasSubstr("use")) << "says that somebody uses it";
  }
  first.write("go\n");
  EXPECT_EQ(first.finish().status, 7);
}

TEST(Disk, CanBeSharedByReaders) {
  const ScratchFile file("shared", 1 << 20);
  const std::string readonly = disk(file.path(), ",readonly=on");
  SkiffProcess first(exec_guest("echo READY; read go; exit 7") + Arguments{"--disk", readonly});
  ASSERT_TRUE(first.wait_for_output("READY")) << first.transcript();
  const Outcome second =
      run_skiff(exec_guest("wc -c < /dev/vda; exit 8") + Arguments{"--disk", readonly});
  EXPECT_EQ(second.status, 8) << second.err;
  EXPECT_EQ(second.out, "1048576\n");
  first.write("go\n");
  EXPECT_EQ(first.finish().status, 7);
}

}  // namespace
}  // namespace skiff::guest
