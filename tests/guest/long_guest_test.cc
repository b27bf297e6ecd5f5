// SPDX-License-Identifier: GPL-2.0-or-later
// What takes longer than a default run may: many boots, many processors, much data.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <string>

#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

// Silence is taken for a hang.
void show_progress(int done) {
  std::printf("%d\n", done);
  std::fflush(stdout);
}

// A hundred in all, in four tests: each gets a lab of its own (docs/lab.md says why).
class LongBoots : public ::testing::TestWithParam<int> {};

TEST_P(LongBoots, OfAllKindsEndWithTheirStatus) {
  for (int boot = GetParam(); boot < GetParam() + 25; ++boot) {
    const std::string cpus = std::to_string(1 << (boot % 4));
    const Arguments arguments =
        with(exec_guest("test $(nproc) = " + cpus + " && exit " + std::to_string(boot)), "--kernel",
             image(boot % 3 == 0 ? "vmlinux" : "vmlinuz"));
    const Arguments devices = {"--cpus", cpus, "--console",
                               boot % 2 == 0 ? "null,bus=pci" : "null,bus=mmio"};
    const Outcome outcome = run_skiff(arguments + devices);
    ASSERT_EQ(outcome.status, boot) << outcome.err;
    show_progress(boot);
  }
}

INSTANTIATE_TEST_SUITE_P(From, LongBoots, ::testing::Values(0, 25, 50, 75));

TEST(Long, FiftyResetsInARow) {
  const ScratchFile disk("count", 1 << 20);
  const ScriptInitrd initrd(R"sh(
n=$(head -c 3 /dev/vda | tr -d '\0')
n=$((${n:-0} + 1))
echo BOOT $n
[ $n -lt 51 ] || poweroff -f
printf "%d" $n > /dev/vda
sync
reboot -f
)sh");
  SkiffProcess skiff(with(script_guest(initrd), "--timeout", "3000") +
                     Arguments{"--cpus", "4", "--disk", "path=" + disk.path() + ",format=raw"});
  for (int boot = 1; boot <= 51; ++boot) {
    ASSERT_TRUE(skiff.wait_for_output("BOOT " + std::to_string(boot) + "\r")) << skiff.transcript();
    show_progress(boot);
  }
  EXPECT_EQ(skiff.finish().status, 0);
}

// More are a matter of the payload tests: on an emulated host the guest's kernel alone takes hours
// to greet 255.
class LongProcessors : public ::testing::TestWithParam<std::string> {};

TEST_P(LongProcessors, AllComeUp) {
  const Outcome outcome =
      run_skiff(with(with(exec_guest("nproc"), "--timeout", "3000"), "--memory", "2G") +
                Arguments{"--cpus", GetParam()});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, GetParam() + "\n");
}

INSTANTIATE_TEST_SUITE_P(Counts, LongProcessors, ::testing::Values("32", "64"));

TEST(Long, AGigabyteIsCopiedBetweenDisks) {
  const ScratchFile from("from");
  from.fill_with_noise(uint64_t{512} << 20);
  const ScratchFile to("to", uint64_t{512} << 20);
  const Outcome outcome = run_skiff(
      with(exec_guest("cat /dev/vda > /dev/vdb; sync; md5sum < /dev/vdb"), "--timeout", "3000") +
      Arguments{"--cpus", "4", "--disk", "path=" + from.path() + ",format=raw", "--disk",
                "path=" + to.path() + ",format=raw,bus=mmio"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const std::string md5 = md5_of_file(from.path());
  EXPECT_EQ(outcome.out, md5 + "  -\n");
  EXPECT_EQ(md5_of_file(to.path()), md5);
}

}  // namespace
}  // namespace skiff::guest
