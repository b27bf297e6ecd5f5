// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/host_load.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "loop/cpu_set.h"
#include "tests/temp_dir.h"

namespace skiff::vmm {
namespace {

class HostLoadTest : public ::testing::Test {
 protected:
  void write(const std::string& text) { std::ofstream(path_) << text; }
  TempDir directory_;
  const std::string path_ = directory_.path("stat");
};

TEST_F(HostLoadTest, IdleCpusAreThoseOfTheLastPeriod) {
  HostLoad load({}, path_);
  write(
      "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 10 0 10 100 0 0 0 0 0 0\ncpu1 10 0 10 100 0 0 0 0 0 0\n"
      "intr 1 2 3\n");
  EXPECT_FALSE(load.idle_cpus());
  write(
      "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 20 0 10 105 5 0 0 0 0 0\ncpu1 30 0 10 100 0 0 0 0 0 0\n"
      "intr 1 2 3\n");
  const auto idle = load.idle_cpus();
  ASSERT_TRUE(idle);
  EXPECT_DOUBLE_EQ(*idle, 0.5);  // Half of one CPU's time, none of the other's.
}

TEST_F(HostLoadTest, OnlyTheCpusThatMayBeUsedCount) {
  HostLoad load(*loop::CpuSet::parse("1"), path_);
  write("cpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n");
  EXPECT_FALSE(load.idle_cpus());
  write("cpu0 50 0 0 0 0 0 0 0\ncpu1 0 0 0 50 0 0 0 0\n");
  EXPECT_DOUBLE_EQ(load.idle_cpus().value_or(-1), 1.0);
}

TEST_F(HostLoadTest, TooLittleTimeTellsNothing) {
  HostLoad load({}, path_);
  write("cpu0 0 0 0 0 0 0 0 0\n");
  EXPECT_FALSE(load.idle_cpus());
  write("cpu0 1 0 0 1 0 0 0 0\n");
  EXPECT_FALSE(load.idle_cpus());
  write("cpu0 4 0 0 4 0 0 0 0\n");
  EXPECT_DOUBLE_EQ(load.idle_cpus().value_or(-1), 0.5);
}

TEST_F(HostLoadTest, NonsenseTellsNothing) {
  HostLoad load({}, path_);
  EXPECT_FALSE(load.idle_cpus());
  for (const char* text : {"", "cpu\n", "cpu0\n", "cpux 1 2 3\n", "cpu99999999999 1 2 3 4\n",
                           "cpu0 -1 18446744073709551616 x\n", "intr 5\n"}) {
    write(text);
    EXPECT_FALSE(load.idle_cpus()) << text;
  }
}

}  // namespace
}  // namespace skiff::vmm
