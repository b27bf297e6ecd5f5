// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/iothread_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "loop/cpu_set.h"
#include "tests/vmm/placement/fake_host.h"
#include "vmm/config/disk_config.h"
#include "vmm/config/field_values.h"

namespace skiff::vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

loop::CpuSet cpus(const char* list) {
  auto parsed = loop::CpuSet::parse(list);
  return parsed ? *parsed : loop::CpuSet();
}

class IothreadPlanTest : public ::testing::Test {
 protected:
  PlacementFacts facts(uint32_t vcpus, const char* usable = "0-63",
                       std::vector<uint32_t> pins = {}) const {
    return {host_, {cpus(usable), {}}, vcpus, std::move(pins)};
  }
  static std::vector<DiskConfig> disks(size_t count, DiskSubmit submit = DiskSubmit::kAuto) {
    DiskConfig disk;
    disk.path = "a";
    disk.submit = submit;
    return std::vector<DiskConfig>(count, disk);
  }
  static std::vector<PlannedIothread> named(std::initializer_list<const char*> names) {
    std::vector<PlannedIothread> threads;
    for (const char* name : names) threads.push_back({.name = name});
    return threads;
  }
  HostTopology host_ = two_sockets_with_smt();
};

TEST_F(IothreadPlanTest, OneForEachDiskButNeverMoreThanUsableCores) {
  EXPECT_EQ(plan_iothreads(disks(3), {}, facts(8)).size(), 3u);
  EXPECT_EQ(plan_iothreads(disks(24), {}, facts(8, "0-3,32-35")).size(), 4u);
  EXPECT_THAT(plan_iothreads({}, {}, facts(8)), IsEmpty());
}

TEST_F(IothreadPlanTest, MachineOfOneVcpuHasOneAtMost) {
  EXPECT_EQ(plan_iothreads(disks(5), {}, facts(1)).size(), 1u);
  EXPECT_THAT(plan_iothreads(disks(5, DiskSubmit::kVcpu), {}, facts(1)), IsEmpty());
}

TEST_F(IothreadPlanTest, CgroupQuotaBoundsThemToo) {
  PlacementFacts limited = facts(8);
  limited.usable.quota = 2.0;
  EXPECT_EQ(plan_iothreads(disks(6), {}, limited).size(), 2u);
}

TEST_F(IothreadPlanTest, NothingIsPinnedThatWasNotAskedFor) {
  for (const PlannedIothread& thread : plan_iothreads(disks(4), {}, facts(8)))
    EXPECT_TRUE(thread.cpus.empty()) << thread.name;
}

TEST_F(IothreadPlanTest, PinnedVcpusHaveTheirThreadsOnSiblings) {
  const auto threads = plan_iothreads(disks(2), {}, facts(4, "0-63", {0, 1, 2, 3}));
  ASSERT_EQ(threads.size(), 2u);
  // vCPUs 0 and 2 are the first thread's, 1 and 3 the second's.
  EXPECT_EQ(threads[0].cpus.to_string(), "32,34");
  EXPECT_EQ(threads[1].cpus.to_string(), "33,35");
  EXPECT_THAT(threads[0].why, HasSubstr("hardware threads beside pinned vCPUs"));
}

TEST_F(IothreadPlanTest, WithoutSiblingsTheSharedCacheIsNextThenTheOtherSocket) {
  const auto near = plan_iothreads(disks(1), {}, facts(2, "0-7,16-31", {0, 1}));
  EXPECT_EQ(near[0].cpus.to_string(), "2-7");
  const auto far = plan_iothreads(disks(1), {}, facts(2, "0-1,16-17", {0, 1}));
  EXPECT_EQ(far[0].cpus.to_string(), "16-17");
  const auto none = plan_iothreads(disks(1), {}, facts(2, "0-1", {0, 1}));
  EXPECT_TRUE(none[0].cpus.empty());
}

TEST_F(IothreadPlanTest, ConfiguredThreadsAreTakenAsTheyAre) {
  IothreadConfig asked;
  asked.id = "fast";
  asked.cpus = cpus("5");
  asked.poll_max_us = 7;
  const auto threads =
      plan_iothreads(disks(3), std::vector<IothreadConfig>{asked}, facts(4, "0-63", {0}));
  ASSERT_EQ(threads.size(), 1u);
  EXPECT_EQ(threads[0].name, "fast");
  EXPECT_EQ(threads[0].cpus.to_string(), "5");
  EXPECT_EQ(threads[0].poll_max_us, 7u);
}

TEST_F(IothreadPlanTest, QueuesFollowTheVcpusOverPciAndAreFewOverMmio) {
  DiskConfig disk;
  EXPECT_EQ(plan_queue_count(disk, 4), 4u);
  EXPECT_EQ(plan_queue_count(disk, 255), 255u);
  disk.bus = DeviceBus::kMmio;
  EXPECT_EQ(plan_queue_count(disk, 4), 1u);
  disk.queues = 3;
  EXPECT_EQ(plan_queue_count(disk, 4), 3u);
}

TEST_F(IothreadPlanTest, QueuesAreDealtInTurnsFromTheDisksOwnBeginning) {
  const auto threads = named({"io0", "io1", "io2"});
  DiskConfig disk;
  EXPECT_THAT(plan_queue_map(disk, 0, 4, threads), ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(plan_queue_map(disk, 2, 1, threads), ElementsAre(2));
  disk.iothreads = {"io2", "io0"};
  EXPECT_THAT(plan_queue_map(disk, 0, 3, threads), ElementsAre(2, 0, 2));
  EXPECT_THAT(plan_queue_map(disk, 0, 3, {}), IsEmpty());
}

TEST_F(IothreadPlanTest, ListNamesTheThreadOfEachQueue) {
  const auto threads = named({"io0", "io1"});
  DiskConfig disk;
  disk.map = {QueueMap::Kind::kList, {"io1", "io1", "io0"}};
  EXPECT_THAT(plan_queue_map(disk, 5, 4, threads), ElementsAre(1, 1, 0, 1));
}

}  // namespace
}  // namespace skiff::vmm
