// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "block/io_engine.h"
#include "loop/result.h"
#include "vmm/bench/guest/guest_command.h"

namespace skiff::vmm {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

GuestBenchWords words(const std::string& path = "disk,1.img") {
  GuestBenchWords words;
  words.path = path;
  return words;
}

std::string refusal_of(const GuestBenchWords& given) {
  const auto options = parse_guest_bench(given);
  return options ? "" : options.error().message();
}

std::vector<std::string> names_of(const GuestBenchOptions& options) {
  std::vector<std::string> names;
  for (const GuestContestant& contestant : options.contestants) names.push_back(contestant.name());
  return names;
}

TEST(GuestBenchOptions, AQueueForEachProcessorAndTheHostsBlockingCallBeside) {
  GuestBenchWords given = words();
  given.cpus = "4";
  const auto options = parse_guest_bench(given);
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_EQ(options->queues, 4u);
  EXPECT_EQ(options->rounds, 1u);
  EXPECT_EQ(options->floor, block::IoEngineKind::kSync);
  EXPECT_THAT(names_of(*options), ElementsAre("skiff auto"));
}

TEST(GuestBenchOptions, ContestantsAreTheProductOfWhatIsListed) {
  GuestBenchWords given = words();
  given.vmm = "skiff,qemu";
  given.submit = "iothread,vcpu";
  given.engine = "io_uring,sync";
  given.qemu_aio = "threads,io_uring";
  given.qemu_poll_us = "0,32";
  given.depth = "8";
  const auto options = parse_guest_bench(given);
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_THAT(names_of(*options),
              ElementsAre("skiff iothread io_uring", "skiff iothread sync", "skiff vcpu io_uring",
                          "skiff vcpu sync", "qemu threads poll=0us", "qemu threads poll=32us",
                          "qemu io_uring poll=0us", "qemu io_uring poll=32us"));
  EXPECT_EQ(options->rounds, 5u);
  EXPECT_EQ(options->floor, block::IoEngineKind::kIoUring);
}

TEST(GuestBenchOptions, WhatCannotBeIsRefusedWithWhatIsAllowed) {
  const auto with = [](std::string GuestBenchWords::* member, const char* value) {
    GuestBenchWords given = words();
    given.*member = value;
    return refusal_of(given);
  };
  EXPECT_THAT(with(&GuestBenchWords::vmm, "xen"), HasSubstr("--vmm xen: allowed: skiff, qemu"));
  EXPECT_THAT(with(&GuestBenchWords::cpus, "65"), HasSubstr("--cpus 65: allowed: 1 to 64"));
  EXPECT_THAT(with(&GuestBenchWords::depth, "86"), HasSubstr("--depth 86: allowed: 1 to 85"));
  EXPECT_THAT(with(&GuestBenchWords::bus, "isa"), HasSubstr("pci or mmio"));
  EXPECT_THAT(with(&GuestBenchWords::completion, "nmi"), HasSubstr("poll or irq"));
  EXPECT_THAT(with(&GuestBenchWords::submit, "maybe"), HasSubstr("iothread"));
  EXPECT_THAT(with(&GuestBenchWords::qemu_aio, "x"), Not(HasSubstr("x:")));
  EXPECT_THAT(with(&GuestBenchWords::queue_size, "100"), HasSubstr("power of two"));
  EXPECT_THAT(with(&GuestBenchWords::floor, "fastest"), HasSubstr("none or an engine"));
  EXPECT_THAT(with(&GuestBenchWords::plot, "disk.img"), HasSubstr(".svg"));
  EXPECT_THAT(with(&GuestBenchWords::bs, "2M"), HasSubstr("up to 1M"));
}

TEST(GuestBenchOptions, OneLineOfInterruptsIsForOneProcessor) {
  GuestBenchWords given = words();
  given.bus = "mmio";
  given.completion = "irq";
  given.cpus = "2";
  EXPECT_THAT(refusal_of(given), HasSubstr("--cpus 1"));
}

GuestRunPlan plan() {
  return {.payload = "guest.elf",
          .skiff = "skiff",
          .tsc_khz = 2'000'000,
          .duration_ns = 1'000'000'000,
          .seed = 3};
}

std::vector<std::string> command_of(const GuestBenchWords& given) {
  const auto options = parse_guest_bench(given);
  EXPECT_TRUE(options);
  if (!options) return {};
  const auto command = guest_command(*options, options->contestants.front(), plan());
  EXPECT_TRUE(command);
  return command ? *command : std::vector<std::string>{};
}

TEST(GuestCommand, SkiffGetsItsDiskAndTheGuestItsWords) {
  GuestBenchWords given = words();
  given.depth = "7";
  given.direct = true;
  const auto command = command_of(given);
  EXPECT_THAT(command, Contains("path=disk,,1.img,format=raw,engine=auto,bus=pci,direct=on,"
                                "readonly=on"));
  EXPECT_THAT(command.back(), HasSubstr("bench.depth=7 "));
  EXPECT_THAT(command.back(), HasSubstr("bench.tsc_khz=2000000 bench.ram=67108864"));
  EXPECT_THAT(command.back(), HasSubstr("bench.duration_us=1000000 bench.warmup_us=200000"));
}

TEST(GuestCommand, QueuesAndSubmissionAreSaidOnlyWhenAskedFor) {
  GuestBenchWords given = words();
  given.cpus = "2";
  given.submit = "vcpu";
  EXPECT_THAT(command_of(given), Contains(HasSubstr(",submit=vcpu,queues=2")));
}

TEST(GuestCommand, QemuHasAnIoThreadAndTheSameFile) {
  GuestBenchWords given = words();
  given.vmm = "qemu";
  const auto command = command_of(given);
  EXPECT_THAT(command, Contains("iothread,id=io0,poll-max-ns=32000"));
  EXPECT_THAT(command, Contains("driver=file,node-name=disk,filename=disk,,1.img,aio=io_uring,"
                                "cache.direct=off,read-only=on"));
}

TEST(GuestCommand, ADiskWithoutAMediumIsQemusNullWithTheSameLatency) {
  GuestBenchWords given = words("null:size=2M,latency=30us");
  given.vmm = "qemu";
  EXPECT_THAT(command_of(given),
              Contains("driver=null-co,node-name=disk,size=2097152,latency-ns=30000,"
                       "read-zeroes=off"));
}

TEST(GuestCommand, MoreMemoryThanAGuestGetsIsRefused) {
  GuestBenchWords given = words();
  given.bs = "1M";
  given.depth = "64";
  given.cpus = "64";
  const auto options = parse_guest_bench(given);
  ASSERT_TRUE(options);
  const auto command = guest_command(*options, options->contestants.front(), plan());
  ASSERT_FALSE(command);
  EXPECT_THAT(command.error().message(), HasSubstr("lower one of the three"));
}

}  // namespace
}  // namespace skiff::vmm
