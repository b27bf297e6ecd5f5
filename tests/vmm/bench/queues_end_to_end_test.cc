// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff bench queues` as users start it: in one process, and against back ends of other processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/block/nbd/server_process.h"
#include "tests/guest/skiff_process.h"
#include "tests/temp_dir.h"
#include "vmm/bench/driver/disk_pattern.h"

namespace skiff::vmm {
namespace {

using guest::Outcome;
using guest::run_skiff;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

constexpr size_t kDiskBytes = size_t{4} << 20;
constexpr const char* kNull = "null:size=1G";

Outcome bench(const Words& more) {
  Words words = {"bench", "queues"};
  words.insert(words.end(), more.begin(), more.end());
  return run_skiff(words);
}

void expect_result(const nlohmann::json& result) {
  EXPECT_FALSE(result.contains("error")) << result;
  EXPECT_GT(result["iops"].get<double>(), 0);
  EXPECT_GT(result["serving_cpu_ns_per_request"].get<double>(), 0);
  EXPECT_GT(result["lat_ns"]["p50"].get<uint64_t>(), 0u);
  EXPECT_LE(result["lat_ns"]["p50"].get<uint64_t>(), result["lat_ns"]["max"].get<uint64_t>());
}

TEST(QueuesEndToEnd, WaysToServeAreComparedAndDrawn) {
  const TempDir dir;
  const std::string plot = dir.path("out.svg");
  const Outcome outcome =
      bench({kNull, "--queues", "4", "--threads", "2", "--depth", "4", "--submit",
             "iothread,vcpu,poll", "--duration", "0.3", "--rounds", "1", "--plot", plot});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  for (const char* name : {"iothread auto", "vcpu auto", "poll auto"})
    EXPECT_THAT(outcome.out, HasSubstr(name));
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 3) << outcome.err;
  EXPECT_GT(std::filesystem::file_size(plot), 1000u);
}

TEST(QueuesEndToEnd, ResultsAreJsonForPrograms) {
  const Outcome outcome =
      bench({kNull, "--queues", "2", "--completion", "irq", "--duration", "0.2", "--json"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["queues"], 2);
  EXPECT_EQ(json["completion"], "irq");
  ASSERT_EQ(json["results"].size(), 1u);
  expect_result(json["results"][0]);
}

TEST(QueuesEndToEnd, BackEndsOfOtherProcessesAreMeasuredBesideEachOther) {
  const TempDir dir;
  std::vector<std::byte> bytes(kDiskBytes);
  fill_pattern(bytes.data(), bytes.size(), 0);
  const std::string disk = dir.make_file("disk.img", bytes);
  const std::string skiff_socket = dir.path("skiff");
  const std::string qemu_socket = dir.path("qemu");
  const std::string program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "skiff";
  const block::ServerProcess skiff(
      {program, "storage", "--socket", skiff_socket, "--disk", "path=" + disk + ",readonly=on"},
      skiff_socket);
  const block::ServerProcess qemu(
      {"qemu-storage-daemon", "--blockdev",
       "driver=file,node-name=disk,read-only=on,filename=" + disk, "--export",
       "type=vhost-user-blk,id=export,node-name=disk,num-queues=2,addr.type=unix,addr.path=" +
           qemu_socket},
      qemu_socket);
  ASSERT_FALSE(::testing::Test::HasFailure());
  const Outcome outcome = bench({"--submit", "none", "--vhost-user", skiff_socket, "--vhost-user",
                                 qemu_socket, "--queues", "2", "--depth", "8", "--verify",
                                 "--duration", "0.4", "--rounds", "2", "--json"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  ASSERT_EQ(json["results"].size(), 2u);
  for (const auto& result : json["results"]) {
    expect_result(result);
    EXPECT_EQ(result["rounds"].size(), 2u);
    // Of the other process; our own are beside them.
    EXPECT_FALSE(result["rounds"][0]["threads"].empty());
    EXPECT_FALSE(result["rounds"][0]["driver_threads"].empty());
  }
  EXPECT_EQ(json["results"][0]["socket"], skiff_socket);
}

TEST(QueuesEndToEnd, WritesOverASocketReachTheDisk) {
  const TempDir dir;
  const std::string disk = dir.make_sparse("disk.img", kDiskBytes);
  const std::string socket = dir.path("socket");
  const std::string program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "skiff";
  const block::ServerProcess server(
      {program, "storage", "--socket", socket, "--disk", "path=" + disk}, socket);
  ASSERT_FALSE(::testing::Test::HasFailure());
  const Words words = {"--submit",   "none", "--vhost-user", socket,   "--rw",
                       "write",      "--bs", "64k",          "--size", "512k",
                       "--duration", "0.3",  "--verify"};
  const Outcome refused = bench(words);
  EXPECT_EQ(refused.status, 120);
  EXPECT_THAT(refused.err, HasSubstr("--overwrite"));
  Words asked = words;
  asked.emplace_back("--overwrite");
  const Outcome outcome = bench(asked);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const auto bytes = dir.read_file("disk.img");
  EXPECT_TRUE(is_pattern(bytes.data(), size_t{512} << 10, 0));
}

TEST(QueuesEndToEnd, ASocketWhereNobodyListensIsNamed) {
  const Outcome outcome =
      bench({"--submit", "none", "--vhost-user", "/nowhere/disk.sock", "--duration", "0.1"});
  EXPECT_EQ(outcome.status, 120);
  EXPECT_THAT(outcome.err, HasSubstr("/nowhere/disk.sock"));
}

TEST(QueuesEndToEnd, WrongWordsGiveOneLine) {
  for (const Words& wrong :
       {Words{"--queues", "0"}, Words{"--queues", "65"}, Words{"--depth", "x"},
        Words{"--submit", "fast"}, Words{"--engine", "fast"}, Words{"--completion", "never"},
        Words{"--rw", "erase"}, Words{"--bs", "1000"}, Words{"--duration", "-1"},
        Words{"--queue-size", "100"}, Words{"--rate", "x"}, Words{"--iothreads", "0"}}) {
    const Outcome outcome = bench({kNull, wrong[0], wrong[1]});
    EXPECT_EQ(outcome.status, 120) << wrong[0];
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(wrong[0] + " " + wrong[1]));
  }
  EXPECT_EQ(bench({}).status, 120);
  EXPECT_THAT(bench({kNull, "--no-such"}).err, HasSubstr("skiff bench queues --help"));
}

TEST(QueuesEndToEnd, ADiskThatIsNotThereIsTold) {
  const Outcome outcome = bench({"/nowhere/disk.img", "--duration", "0.1"});
  EXPECT_NE(outcome.status, 0);
  EXPECT_THAT(outcome.err, HasSubstr("/nowhere/disk.img"));
}

}  // namespace
}  // namespace skiff::vmm
