// SPDX-License-Identifier: GPL-2.0-or-later
// A stock Debian kernel boots, in every form and on every bus, and ends as it should.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/guest/skiff_process.h"

namespace skiff::guest {
namespace {

std::vector<std::string> run_with_disk(const std::string& kernel, const std::string& cpus,
                                       const std::string& bus) {
  return {"run",
          "--kernel",
          image(kernel),
          "--initrd",
          image("modules.cpio"),
          "--memory",
          "512M",
          "--cpus",
          cpus,
          "--timeout",
          "300",
          "--disk",
          "path=" + image("rootfs.img") + ",format=raw,bus=" + bus};
}

struct Boot {
  std::string kernel;
  std::string cpus;
  std::string bus;
};

class StockKernel : public ::testing::TestWithParam<Boot> {};

TEST_P(StockKernel, RunsACommandOnItsRootDiskAndEndsWithItsStatus) {
  auto arguments = run_with_disk(GetParam().kernel, GetParam().cpus, GetParam().bus);
  arguments.insert(arguments.end(), {"--exec", "nproc; cat /etc/debian_version; exit 42"});
  const Outcome outcome = run_skiff(arguments);
  EXPECT_EQ(outcome.status, 42) << outcome.err;
  EXPECT_EQ(outcome.out.substr(0, outcome.out.find('\n')), GetParam().cpus);
  EXPECT_NE(outcome.out.find("12"), std::string::npos) << outcome.out;
}

INSTANTIATE_TEST_SUITE_P(
    Boots, StockKernel,
    ::testing::Values(Boot{"vmlinuz", "1", "pci"}, Boot{"vmlinuz", "4", "mmio"},
                      Boot{"vmlinux", "1", "mmio"}, Boot{"vmlinux", "16", "pci"}),
    [](const auto& param) {
      return param.param.kernel + "_" + param.param.cpus + "_" + param.param.bus;
    });

}  // namespace
}  // namespace skiff::guest
