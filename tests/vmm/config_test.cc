// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "block/error_policy.h"
#include "block/io_engine.h"
#include "block/units.h"
#include "loop/check.h"
#include "loop/result.h"
#include "vmm/config/config_file.h"
#include "vmm/config/machine_config.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

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

TEST(OptionText, SplitsAtCommasAndKeepsDoubledOnes) {
  const auto pairs = split_options("disk", "a,,b.img,serial=x=y", "path");
  ASSERT_TRUE(pairs);
  ASSERT_EQ(pairs->size(), 2u);
  EXPECT_EQ((*pairs)[0].key, "path");
  EXPECT_EQ((*pairs)[0].value, "a,b.img");
  EXPECT_EQ((*pairs)[1].value, "x=y");
}

TEST(OptionText, APartWithoutAKeyIsRefusedBehindTheFirst) {
  EXPECT_FALSE(split_options("disk", "path=a,readonly", "path"));
  EXPECT_FALSE(split_options("disk", "", "path"));
  EXPECT_FALSE(split_options("disk", "=x", ""));
}

TEST(OptionText, SizesKnowUnitsAndOverflow) {
  EXPECT_EQ(block::parse_bytes("512M"), uint64_t{512} << 20);
  EXPECT_EQ(block::parse_bytes("4096"), 4096u);
  EXPECT_EQ(block::parse_bytes("1T"), uint64_t{1} << 40);
  EXPECT_FALSE(block::parse_bytes("16777216T"));
  EXPECT_FALSE(block::parse_bytes("M"));
  EXPECT_FALSE(block::parse_bytes("-1"));
  EXPECT_FALSE(block::parse_bytes("1.5G"));
  EXPECT_FALSE(block::parse_bytes(""));
}

TEST(MachineConfig, CpusTakeCountTopologyPinPolicyAndMask) {
  MachineConfig config;
  ASSERT_TRUE(
      apply(config, "cpus", "8,sockets=2,cores=2,threads=2,pin=0-1:5,sched=fifo:10,mask=avx2"));
  EXPECT_EQ(config.cpus.count, 8u);
  EXPECT_EQ(config.cpus.sockets, 2u);
  EXPECT_EQ(config.cpus.pin, (std::vector<uint32_t>{0, 1, 5}));
  EXPECT_EQ(config.cpus.sched.priority, 10);
  EXPECT_EQ(config.cpus.mask, "avx2");
}

TEST(MachineConfig, WorkersHaveSizeCpusAndPolicy) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "workers", "64,min=4,cpus=0-1:5,sched=batch"));
  EXPECT_EQ(config.workers.max, 64u);
  EXPECT_EQ(config.workers.min, 4u);
  EXPECT_EQ(config.workers.cpus.to_string(), "0-1,5");
  EXPECT_EQ(config.workers.sched.to_string(), "batch");
  MachineConfig one;
  ASSERT_TRUE(apply(one, "workers", "1"));
  EXPECT_EQ(one.workers.min, 1u);
  EXPECT_EQ(error_of("workers", "4,min=5"), "workers: min=5 is more than max=4");
  EXPECT_EQ(error_of("workers", "0"), "workers: max=\"0\" is not possible (allowed: 1 to 1024)");
  EXPECT_EQ(error_of("workers", "4,cpus=x"),
            "workers: cpus=\"x\" is not possible (allowed: host CPUs like 0-3:8)");
}

TEST(MachineConfig, EveryErrorNamesOptionKeyValueAndWhatIsAllowed) {
  EXPECT_EQ(error_of("cpus", "0"), "cpus: count=\"0\" is not possible (allowed: 1 to 255)");
  EXPECT_EQ(error_of("cpus", "5000"), "cpus: count=\"5000\" is not possible (allowed: 1 to 255)");
  EXPECT_EQ(error_of("memory", "1M"),
            "memory: size=\"1M\" is not possible (allowed: 8M to 16T, like 512M or 4G)");
  EXPECT_EQ(error_of("disk", "path=x,format=qcow2"),
            "disk: format=\"qcow2\" is not possible (allowed: raw)");
  EXPECT_EQ(error_of("disk", "readonly=on"), "disk: no path (write --disk path=FILE)");
  EXPECT_EQ(error_of("disk", "path=x,cache=none"),
            "disk: unknown key \"cache\" (allowed: path, vhost-user, format, readonly, "
            "direct, "
            "engine, serial, rerror, werror, reconnect-delay, reply-timeout, fault, bus, queues, "
            "queue-size, submit, iothreads, map, steer, discard, iops, iops-read, "
            "iops-write, iops-burst, bps, bps-read, bps-write, bps-burst)");
  EXPECT_EQ(error_of("disk", "path=x,path=y"), "disk: \"path\" is given twice");
  EXPECT_EQ(error_of("on-reset", "never"),
            "on-reset: value=\"never\" is not possible (allowed: restart or exit)");
}

TEST(MachineConfig, PatienceWithAnNbdServerIsInSeconds) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "disk", "nbd://host/disk,reconnect-delay=0,reply-timeout=30"));
  EXPECT_EQ(config.disks[0].path, "nbd://host/disk");
  EXPECT_EQ(config.disks[0].nbd.reconnect_delay_s, 0u);
  EXPECT_EQ(config.disks[0].nbd.reply_timeout_s, 30u);
  EXPECT_NE(error_of("disk", "nbd://h,reconnect-delay=-1").find("seconds"), std::string::npos);
}

TEST(MachineConfig, ACommandLineIsTakenWithItsCommas) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "cmdline", "console=ttyS0,115200 root=/dev/vda"));
  EXPECT_EQ(config.cmdline, "console=ttyS0,115200 root=/dev/vda");
}

TEST(MachineConfig, DiskTakesErrorPoliciesLimitsAndFaults) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "disk",
                    "a,rerror=ignore,werror=enospc,iops=100,iops-read=50,bps=10M,bps-burst=16M,"
                    "fault=op=write:error=EIO;delay=5ms"));
  const DiskConfig& disk = config.disks[0];
  EXPECT_EQ(disk.errors.read, block::ErrorPolicy::kIgnore);
  EXPECT_EQ(disk.errors.write, block::ErrorPolicy::kEnospc);
  EXPECT_EQ(disk.throttle.requests.total, 100u);
  EXPECT_EQ(disk.throttle.requests.read, 50u);
  EXPECT_EQ(disk.throttle.bytes.total, 10u << 20);
  EXPECT_EQ(disk.throttle.bytes.burst, 16u << 20);
  ASSERT_TRUE(disk.faults.has_value());
  EXPECT_EQ(disk.faults->rules.size(), 2u);
  ASSERT_TRUE(apply(config, "disk", "a,fault="));
  EXPECT_TRUE(config.disks[1].faults.has_value());
  ASSERT_TRUE(apply(config, "disk", "a"));
  EXPECT_FALSE(config.disks[2].faults.has_value());
  EXPECT_FALSE(config.disks[2].throttle.any());

  EXPECT_EQ(error_of("disk", "a,werror=panic"),
            "disk: werror=\"panic\" is not possible (allowed: report, ignore, enospc or stop)");
  EXPECT_NE(error_of("disk", "a,iops=0").find("1 or more"), std::string::npos);
  EXPECT_NE(error_of("disk", "a,fault=error=EWHAT").find("ENOSPC"), std::string::npos);
}

TEST(MachineConfig, EveryEngineCanBeNamed) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "disk", "a"));
  EXPECT_EQ(config.disks[0].engine, block::IoEngineKind::kAuto);
  for (const block::IoEngineKind kind : block::kAllEngineKinds) {
    ASSERT_TRUE(apply(config, "disk", "b,engine=" + std::string(block::engine_name(kind))));
    EXPECT_EQ(config.disks.back().engine, kind);
  }
  EXPECT_EQ(error_of("disk", "b,engine=native"),
            "disk: engine=\"native\" is not possible (allowed: auto, sync, worker, threads, "
            "posix-aio, linux-aio or io_uring)");
}

TEST(MachineConfig, FormatIsRememberedAsGivenOrNot) {
  MachineConfig config;
  ASSERT_TRUE(apply(config, "disk", "path=a"));
  ASSERT_TRUE(apply(config, "disk", "b,format=raw,readonly=on,bus=mmio"));
  EXPECT_FALSE(config.disks[0].format_given);
  EXPECT_TRUE(config.disks[1].format_given);
  EXPECT_TRUE(config.disks[1].readonly);
  EXPECT_EQ(config.disks[1].bus, DeviceBus::kMmio);
}

class ValidateTest : public ::testing::Test {
 protected:
  ValidateTest() { config_.kernel = "vmlinuz"; }
  MachineConfig config_;
};

TEST_F(ValidateTest, AKernelIsNeeded) {
  EXPECT_TRUE(validate(config_));
  config_.kernel.clear();
  EXPECT_FALSE(validate(config_));
}

TEST_F(ValidateTest, TopologyMustMultiplyToTheCount) {
  config_.cpus.count = 6;
  config_.cpus.sockets = 2;
  EXPECT_TRUE(validate(config_));
  config_.cpus.cores = 2;
  EXPECT_FALSE(validate(config_));
}

TEST_F(ValidateTest, AnUnknownCpuFeatureIsNamed) {
  config_.cpus.mask = "avx2:avx3";
  const auto valid = validate(config_);
  ASSERT_FALSE(valid);
  EXPECT_NE(valid.error().message().find("avx3"), std::string::npos);
}

TEST_F(ValidateTest, StdioHasOneOwner) {
  config_.serials = {"stdio"};
  EXPECT_TRUE(validate(config_));
  config_.consoles.push_back({"stdio", ""});
  EXPECT_FALSE(validate(config_));
  config_.consoles.clear();
  config_.exec = "true";
  EXPECT_FALSE(validate(config_));
}

TEST(ConfigFile, KnowsTheSameNamesInEveryForm) {
  MachineConfig config;
  const auto applied = apply_config_text(config, R"({
    "kernel": "vmlinuz", "cpus": {"count": 4, "sockets": 2, "pin": ["0-1", 3]}, "memory": "2G",
    "rng": true, "timeout": 30, "on-reset": "exit",
    "disk": [{"path": "root.img", "readonly": true}, "path=data.img,direct=on"]})");
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_EQ(config.kernel, "vmlinuz");
  EXPECT_EQ(config.cpus.count, 4u);
  EXPECT_EQ(config.cpus.pin, (std::vector<uint32_t>{0, 1, 3}));
  EXPECT_EQ(config.memory.size_bytes, uint64_t{2} << 30);
  EXPECT_TRUE(config.rng);
  EXPECT_EQ(config.timeout_s, 30u);
  EXPECT_EQ(config.on_reset, OnReset::kExit);
  ASSERT_EQ(config.disks.size(), 2u);
  EXPECT_TRUE(config.disks[0].readonly);
  EXPECT_TRUE(config.disks[1].direct);
}

struct BadFile {
  const char* json;
  const char* expected;
};
class BadConfigFile : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadConfigFile, NamesWhatIsWrong) {
  MachineConfig config;
  const auto applied = apply_config_text(config, GetParam().json);
  ASSERT_FALSE(applied);
  EXPECT_NE(applied.error().message().find(GetParam().expected), std::string::npos)
      << applied.error().message();
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadConfigFile,
    ::testing::Values(BadFile{"", "not JSON"}, BadFile{"[1]", "must be an object"},
                      BadFile{R"({"kernal": "x"})", "Unknown key \"kernal\" (allowed: kernel"},
                      BadFile{R"({"cpus": {"count": 1.5}})", "cpus.count: 1.5"},
                      BadFile{R"({"cpus": {"cuont": 1}})", "unknown key \"cuont\""},
                      BadFile{R"({"rng": "yes"})", "rng: \"yes\" is not possible (allowed: true"},
                      BadFile{R"({"memory": ["1G", "2G"]})", "a single value, no list"},
                      BadFile{R"({"kernel": {"path": "x"}})", "allowed: a string"},
                      BadFile{R"({"disk": [{"path": null}]})", "disk.path: null"}));

}  // namespace
}  // namespace skiff::vmm
