// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/host_topology.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "loop/cpu_set.h"
#include "tests/temp_dir.h"
#include "tests/vmm/placement/fake_host.h"

namespace skiff::vmm {
namespace {

loop::CpuSet cpus(const char* list) {
  auto parsed = loop::CpuSet::parse(list);
  return parsed ? *parsed : loop::CpuSet();
}

class HostTopologyTest : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = directory_.path(path);
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  // 64 CPUs as Linux tells of them: 2 sockets, each a memory node and an L3, 16 cores of 2 threads;
  // CPU i and i + 32 share a core.
  void write_two_sockets() {
    write("devices/system/cpu/online", "0-63\n");
    write("devices/system/node/online", "0-1\n");
    write("devices/system/node/node0/cpulist", "0-15,32-47\n");
    write("devices/system/node/node1/cpulist", "16-31,48-63\n");
    for (uint32_t cpu = 0; cpu < 64; ++cpu) {
      const std::string base = "devices/system/cpu/cpu" + std::to_string(cpu);
      const uint32_t core = cpu % 32;
      const std::string pair = std::to_string(core) + "," + std::to_string(core + 32) + "\n";
      write(base + "/topology/physical_package_id", core < 16 ? "0\n" : "1\n");
      write(base + "/topology/core_cpus_list", pair);
      write(base + "/cache/index0/level", "1\n");
      write(base + "/cache/index0/shared_cpu_list", pair);
      write(base + "/cache/index1/level", "3\n");
      write(base + "/cache/index1/shared_cpu_list", core < 16 ? "0-15,32-47\n" : "16-31,48-63\n");
    }
  }
  TempDir directory_;
};

TEST_F(HostTopologyTest, TwoSocketsWithSmtAreReadAsTheyAre) {
  write_two_sockets();
  const HostTopology read = HostTopology::read(directory_.path());
  const HostTopology expected = two_sockets_with_smt();
  ASSERT_EQ(read.cpus().size(), 64u);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(read.cpus()[i], expected.cpus()[i]) << i;
  EXPECT_TRUE(read.has_several_nodes());
  EXPECT_EQ(read.core_count(cpus("0-63")), 32u);
  EXPECT_EQ(read.core_count(cpus("0,32,1")), 2u);
}

TEST_F(HostTopologyTest, DistancesGrowFromTheSameCpuToTheOtherSocket) {
  const HostTopology host = two_sockets_with_smt();
  EXPECT_EQ(host.distance(3, 3), CpuDistance::kSameCpu);
  EXPECT_EQ(host.distance(3, 35), CpuDistance::kSibling);
  EXPECT_EQ(host.distance(3, 4), CpuDistance::kSameCache);
  EXPECT_EQ(host.distance(3, 16), CpuDistance::kFar);
  EXPECT_EQ(host.distance(3, 64), CpuDistance::kFar);
}

TEST_F(HostTopologyTest, NothingThereIsStillAHost) {
  const HostTopology host = HostTopology::read(directory_.path("nowhere"));
  EXPECT_GE(host.cpus().size(), 1u);
  EXPECT_FALSE(host.has_several_nodes());
}

TEST_F(HostTopologyTest, FilesThatMakeNoSenseLeaveCpusOnTheirOwn) {
  write("devices/system/cpu/online", "0-3\n");
  write("devices/system/cpu/cpu0/topology/physical_package_id", "-1\n");
  write("devices/system/cpu/cpu0/topology/core_cpus_list", "1-3\n");  // Not CPU 0 itself.
  write("devices/system/cpu/cpu1/topology/core_cpus_list", std::string(300'000, '9'));
  write("devices/system/cpu/cpu1/cache/index0/level", "99999999999999999999\n");
  write("devices/system/cpu/cpu2/cache/index0/level", "3\n");
  write("devices/system/cpu/cpu2/cache/index0/shared_cpu_list", "9-1\n");
  std::filesystem::create_directories(
      directory_.path("devices/system/cpu/cpu3/topology/core_cpus_list"));
  write("devices/system/node/online", "0-99999999\n");
  const HostTopology host = HostTopology::read(directory_.path());
  ASSERT_EQ(host.cpus().size(), 4u);
  for (uint32_t cpu = 0; cpu < 4; ++cpu) {
    EXPECT_EQ(host.cpus()[cpu].core, cpu);
    EXPECT_EQ(host.cpus()[cpu].cache, cpu);
  }
}

TEST_F(HostTopologyTest, QuotaIsTheLeastOnTheWayToTheRoot) {
  write("membership", "0::/vms/skiff\n");
  write("root/cpu.max", "400000 100000\n");
  write("root/vms/cpu.max", "150000 100000\n");
  write("root/vms/skiff/cpu.max", "max 100000\n");
  const auto quota = read_cpu_quota({directory_.path("membership"), directory_.path("root")});
  ASSERT_TRUE(quota);
  EXPECT_DOUBLE_EQ(*quota, 1.5);
}

TEST_F(HostTopologyTest, QuotaOfTheFirstKindOfCgroupsIsReadToo) {
  write("membership", "9:name=systemd:/\n4:cpu,cpuacct:/box\n2:cpuset:/\n");
  write("root/cpu,cpuacct/box/cpu.cfs_quota_us", "250000\n");
  write("root/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
  write("root/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("root/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  const auto quota = read_cpu_quota({directory_.path("membership"), directory_.path("root")});
  ASSERT_TRUE(quota);
  EXPECT_DOUBLE_EQ(*quota, 2.5);
}

TEST_F(HostTopologyTest, QuotaThatMakesNoSenseIsNone) {
  write("membership", "0::/a\n1:cpu:/a\nrubbish\n::\n");
  write("root/a/cpu.max", "100000 0\n");
  write("root/cpu/a/cpu.cfs_quota_us", "many\n");
  EXPECT_FALSE(read_cpu_quota({directory_.path("membership"), directory_.path("root")}));
  EXPECT_FALSE(read_cpu_quota({directory_.path("nowhere"), directory_.path("nowhere")}));
}

TEST_F(HostTopologyTest, UsableCoresAreWholeOnesAndAtLeastOne) {
  const HostTopology host = two_sockets_with_smt();
  EXPECT_EQ((UsableCpus{cpus("0-3,32-35"), {}}.cores(host)), 4u);
  EXPECT_EQ((UsableCpus{cpus("0-31"), 2.9}.cores(host)), 2u);
  EXPECT_EQ((UsableCpus{cpus("0-31"), 0.2}.cores(host)), 1u);
  EXPECT_EQ((UsableCpus{{}, {}}.cores(host)), 1u);
}

}  // namespace
}  // namespace skiff::vmm
