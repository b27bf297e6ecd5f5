// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/machine_description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "tests/temp_dir.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/host_usage.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

constexpr const char* kMounts =
    "/dev/vda1 / ext4 rw 0 0\n"
    "tmpfs /data tmpfs rw 0 0\n"
    "/dev/vdb /data/fast xfs rw 0 0\n";

TEST(MachineDescription, TheFileSystemIsThatOfTheDeepestMount) {
  EXPECT_EQ(file_system_of("/somewhere", kMounts), "ext4 on /dev/vda1");
  EXPECT_EQ(file_system_of("/data", kMounts), "tmpfs on tmpfs");
  EXPECT_EQ(file_system_of("/data/fast/x/y", kMounts), "xfs on /dev/vdb");
  EXPECT_EQ(file_system_of("/data/faster", kMounts), "tmpfs on tmpfs");
  EXPECT_EQ(file_system_of("/x", ""), "unknown");
}

TEST(MachineDescription, SaysWhatAReaderNeeds) {
  const TempDir dir;
  const MachineFacts facts = describe_machine("1.2.3", {dir.path()});
  for (const char* name : {"CPU", "Memory", "Kernel", "KVM", "Governor", "Skiff"}) {
    const auto fact = std::ranges::find(facts, name, &MachineFacts::value_type::first);
    ASSERT_NE(fact, facts.end()) << name;
    EXPECT_FALSE(fact->second.empty()) << name;
  }
  EXPECT_EQ(facts.back().first, dir.path());
  EXPECT_THAT(facts.back().second, HasSubstr(" on "));
}

TEST(HostUsage, StealIsAPartOfTheTimeBetween) {
  const HostCpuTime begin = {.all = 1000, .steal = 10};
  EXPECT_DOUBLE_EQ((HostCpuTime{.all = 1200, .steal = 15}).steal_percent_since(begin), 2.5);
  EXPECT_EQ(begin.steal_percent_since(begin), 0);
  EXPECT_GT(HostCpuTime::now().all, 0u);
}

TEST(HostUsage, AGroupsThreadsAndMemoryAreSeen) {
  const GroupUsage usage = usage_of_groups({::getpgrp()});
  EXPECT_GE(usage.threads, 1u);
  EXPECT_GT(usage.anonymous_bytes, 0u);
  EXPECT_EQ(usage_of_groups({}).threads, 0u);
}

}  // namespace
}  // namespace skiff::vmm
