// SPDX-License-Identifier: GPL-2.0-or-later
// Where a disk's requests are served, as the user says it.
#include "vmm/config/disk_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "loop/check.h"
#include "loop/result.h"
#include "vmm/config/config_file.h"
#include "vmm/config/machine_config.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

using ::testing::ElementsAre;

loop::Result<void> apply(MachineConfig& config, std::string_view name, std::string_view text) {
  const auto options = machine_options();
  const auto option = std::ranges::find(options, name, &OptionInfo::name);
  SKIFF_CHECK(option != options.end());
  return apply_option(config, *option, text);
}

std::string error_of(std::string_view name, std::string_view text) {
  MachineConfig config;
  const auto applied = apply(config, name, text);
  return applied ? "" : applied.error().message();
}

// What validate() says of a machine with these IOThreads and this disk.
std::string contradiction(const std::vector<std::string>& iothreads, const std::string& disk) {
  MachineConfig config;
  config.kernel = "vmlinuz";
  for (const std::string& text : iothreads) SKIFF_CHECK(apply(config, "iothread", text));
  if (const auto applied = apply(config, "disk", disk); !applied) return applied.error().message();
  const auto valid = validate(config);
  return valid ? "" : valid.error().message();
}

TEST(DiskConfig, NeedsNoTuning) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "disk", "a"));
  const DiskConfig& disk = config.disks[0];
  EXPECT_EQ(disk.queues, 0u);
  EXPECT_EQ(disk.queue_size, 256u);
  EXPECT_EQ(disk.submit, DiskSubmit::kAuto);
  EXPECT_EQ(disk.map.kind, QueueMap::Kind::kAuto);
  EXPECT_TRUE(disk.steer);
  EXPECT_TRUE(disk.discard);
  EXPECT_TRUE(disk.iothreads.empty());
}

TEST(DiskConfig, TakesQueuesThreadsModeMapAndSteering) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "disk",
                    "a,queues=4,queue-size=128,submit=iothread,iothreads=io0:io1,"
                    "map=io1:io0:io0,steer=off,discard=off"));
  const DiskConfig& disk = config.disks[0];
  EXPECT_EQ(disk.queues, 4u);
  EXPECT_EQ(disk.queue_size, 128u);
  EXPECT_EQ(disk.submit, DiskSubmit::kIothread);
  EXPECT_THAT(disk.iothreads, ElementsAre("io0", "io1"));
  EXPECT_EQ(disk.map.kind, QueueMap::Kind::kList);
  EXPECT_THAT(disk.map.iothreads, ElementsAre("io1", "io0", "io0"));
  EXPECT_FALSE(disk.steer);
  EXPECT_FALSE(disk.discard);
  ASSERT_TRUE(apply(config, "disk", "a,queues=auto,map=round-robin,submit=poll"));
  EXPECT_EQ(config.disks[1].queues, 0u);
  EXPECT_EQ(config.disks[1].map.kind, QueueMap::Kind::kRoundRobin);
  EXPECT_EQ(config.disks[1].submit, DiskSubmit::kPoll);
}

TEST(DiskConfig, IothreadHasAnIdCpusPolicyAndPolling) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "iothread", "io0"));
  ASSERT_TRUE(apply(config, "iothread", "id=rt.1,cpus=2-3:8,sched=fifo:20,poll-max-us=0"));
  EXPECT_EQ(config.iothreads[0].id, "io0");
  EXPECT_FALSE(config.iothreads[0].poll_max_us);
  EXPECT_EQ(config.iothreads[1].cpus.to_string(), "2-3,8");
  EXPECT_EQ(config.iothreads[1].sched.to_string(), "fifo:20");
  EXPECT_EQ(config.iothreads[1].poll_max_us, 0u);
}

TEST(DiskConfig, FileKnowsTheSameNames) {
  MachineConfig config;
  const auto applied = apply_config_text(config, R"({
    "kernel": "k", "iothread": ["io0", {"id": "io1", "cpus": [1, "4-5"], "poll-max-us": 40}],
    "disk": {"path": "a", "queues": 2, "submit": "iothread", "iothreads": ["io0", "io1"],
             "map": ["io1", "io0"], "steer": "off", "discard": false}})");
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_TRUE(validate(config));
  EXPECT_EQ(config.iothreads[1].cpus.to_string(), "1,4-5");
  EXPECT_EQ(config.iothreads[1].poll_max_us, 40u);
  EXPECT_THAT(config.disks[0].map.iothreads, ElementsAre("io1", "io0"));
  EXPECT_FALSE(config.disks[0].discard);
}

TEST(DiskConfig, EveryWrongValueHasAnErrorThatSaysWhatIsAllowed) {
  EXPECT_EQ(error_of("disk", "a,queues=0"),
            "disk: queues=\"0\" is not possible (allowed: auto or 1 to 255)");
  EXPECT_EQ(error_of("disk", "a,queues=256"),
            "disk: queues=\"256\" is not possible (allowed: auto or 1 to 255)");
  EXPECT_EQ(error_of("disk", "a,queue-size=100"),
            "disk: queue-size=\"100\" is not possible (allowed: a power of two from 4 to 1024)");
  EXPECT_EQ(error_of("disk", "a,submit=inline"),
            "disk: submit=\"inline\" is not possible (allowed: auto, iothread, vcpu or poll)");
  EXPECT_EQ(
      error_of("disk", "a,iothreads=io0::io1"),
      "disk: iothreads=\"io0::io1\" is not possible (allowed: ids of --iothread like io0:io1)");
  EXPECT_EQ(error_of("disk", "a,map="),
            "disk: map=\"\" is not possible (allowed: auto, round-robin or an id of --iothread for "
            "each queue like io0:io1:io0)");
  EXPECT_EQ(error_of("disk", "a,steer=on"),
            "disk: steer=\"on\" is not possible (allowed: auto or off)");
  EXPECT_EQ(error_of("disk", "a,discard=maybe"),
            "disk: discard=\"maybe\" is not possible (allowed: on or off)");
  EXPECT_EQ(error_of("iothread", "cpus=1"), "iothread: no id (write --iothread id=io0)");
  for (const char* id : {"auto", "round-robin", "a:b", "", "0123456789abcdef", "a b"})
    EXPECT_NE(error_of("iothread", std::string("id=") + id).find("1 to 15 letters"),
              std::string::npos)
        << id;
  EXPECT_EQ(error_of("iothread", "io0,poll-max-us=10001"),
            "iothread: poll-max-us=\"10001\" is not possible (allowed: 0 (never) to 10000 "
            "microseconds)");
  EXPECT_EQ(error_of("iothread", "io0,cpus=x"),
            "iothread: cpus=\"x\" is not possible (allowed: host CPUs like 0-3:8)");
}

TEST(DiskConfig, ContradictionsAreRefused) {
  EXPECT_EQ(contradiction({"io0"}, "a,submit=vcpu,iothreads=io0"),
            "disk: submit=vcpu and iothreads= exclude each other: the vCPUs submit, no IOThread "
            "does");
  EXPECT_EQ(contradiction({"io0"}, "a,submit=vcpu,map=io0"),
            "disk: submit=vcpu and map= exclude each other: queues belong to vCPUs, not to "
            "IOThreads");
  EXPECT_EQ(contradiction({"io0", "io1"}, "a,iothreads=io0,map=io0:io1"),
            "disk: map= names \"io1\", which iothreads= leaves out");
  EXPECT_EQ(contradiction({"io0"}, "a,queues=1,map=io0:io0"),
            "disk: map= names 2 IOThreads for queues=1");
  EXPECT_EQ(contradiction({"io0"}, "a,iothreads=io0:io0"),
            "disk a: iothreads= names \"io0\" twice");
  EXPECT_EQ(contradiction({"io0,poll-max-us=0"}, "a,submit=poll,iothreads=io0"),
            "disk a: submit=poll on IOThread \"io0\", which poll-max-us=0 keeps from polling");
  EXPECT_EQ(contradiction({"io0", "io0"}, "a"), "iothread: id \"io0\" is given twice");
}

TEST(DiskConfig, DiskOfAnotherProcessTakesOnlyWhatIsOurs) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "disk", "vhost-user=/run/d.sock,queues=4,queue-size=128,bus=mmio"));
  EXPECT_EQ(config.disks[0].vhost_user, "/run/d.sock");
  EXPECT_EQ(config.disks[0].queues, 4u);
  EXPECT_NE(error_of("disk", "vhost-user=/run/d.sock,engine=sync").find("engine="),
            std::string::npos);
  EXPECT_NE(error_of("disk", "path=a.img,vhost-user=/run/d.sock").find("path="), std::string::npos);
}

TEST(DiskConfig, UnknownIothreadIsNamedWithThoseThatThereAre) {
  EXPECT_EQ(contradiction({}, "a,iothreads=io0"),
            "disk a: no IOThread \"io0\" (add --iothread id=io0)");
  EXPECT_EQ(contradiction({"io0", "io1"}, "a,map=io7"),
            "disk a: no IOThread \"io7\" (there are io0, io1; name one of them or add --iothread "
            "id=io7)");
  EXPECT_EQ(contradiction({"io0", "io1"}, "a,iothreads=io1,map=io1:io1"), "");
}

}  // namespace
}  // namespace skiff::vmm
