// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff bench guest` from end to end: the payload guest boots, finds its disk on either bus, and
// reads what is there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/guest/guest.h"
#include "tests/guest/skiff_process.h"
#include "tests/temp_dir.h"
#include "vmm/bench/driver/disk_pattern.h"

namespace skiff::payload {
namespace {

using guest::Arguments;
using guest::Outcome;
using guest::run_skiff;
using ::testing::HasSubstr;
using vmm::fill_pattern;
using vmm::is_pattern;

constexpr const char* kNothing =
    R"({"guests": [{"error": "nothing", "rounds": [{"reads": 0}], "lat_ns": {"p50": 0}}]})";
constexpr size_t kDiskBytes = size_t{4} << 20;

class GuestBench : public ::testing::Test {
 protected:
  static Outcome bench(const std::string& disk, const Arguments& more) {
    return run_skiff(
        guest::with(guest::operator+({"bench", "guest", disk}, more), "--duration", "0.2"));
  }
  static nlohmann::json json_of(const Outcome& outcome) {
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    auto json = nlohmann::json::parse(outcome.out, nullptr, false);
    EXPECT_TRUE(json.is_object()) << outcome.out;
    // Asking for what is not there ends the program.
    if (!json.is_object() || json["guests"].empty() || json["guests"][0]["rounds"].empty())
      return nlohmann::json::parse(kNothing);
    return json;
  }
  std::string pattern_disk() {
    std::vector<std::byte> bytes(kDiskBytes);
    fill_pattern(bytes.data(), bytes.size(), 0);
    return dir_.make_file("pattern.img", bytes);
  }
  TempDir dir_;
};

struct Machine {
  const char* name;
  Arguments options;
};
class GuestBenchOn : public GuestBench, public ::testing::WithParamInterface<Machine> {};

TEST_P(GuestBenchOn, ReadsWhatIsOnTheDisk) {
  const auto json =
      json_of(bench(pattern_disk(),
                    guest::operator+(GetParam().options, {"--verify", "--depth", "4", "--json"})));
  ASSERT_EQ(json["guests"].size(), 1u);
  EXPECT_FALSE(json["guests"][0].contains("error"));
  EXPECT_GT(json["guests"][0]["rounds"][0]["reads"].get<uint64_t>(), 10u);
  EXPECT_GT(json["guests"][0]["lat_ns"]["p50"].get<uint64_t>(), 0u);
}

TEST_P(GuestBenchOn, WritesReachTheDisk) {
  const std::string disk = dir_.make_sparse("written.img", kDiskBytes);
  json_of(bench(disk,
                guest::operator+(GetParam().options, {"--verify", "--rw", "write", "--bs", "64k",
                                                      "--size", "512k", "--overwrite", "--json"})));
  const auto bytes = dir_.read_file("written.img");
  EXPECT_TRUE(is_pattern(bytes.data(), size_t{512} << 10, 0));
}

INSTANTIATE_TEST_SUITE_P(
    Machines, GuestBenchOn,
    ::testing::Values(Machine{"PciPolling", {}}, Machine{"PciInterrupts", {"--completion", "irq"}},
                      Machine{"PciIndirect", {"--indirect"}},
                      Machine{"MmioPolling", {"--bus", "mmio"}},
                      Machine{"MmioInterrupts", {"--bus", "mmio", "--completion", "irq"}},
                      Machine{"FourProcessorsOneQueue", {"--cpus", "4", "--queues", "1"}}),
    [](const auto& param) { return param.param.name; });

TEST_F(GuestBench, AtARateSendsThatManyRequests) {
  const auto json =
      json_of(bench("null:size=1G", {"--rate", "500", "--completion", "irq", "--json"}));
  const auto reads = json["guests"][0]["rounds"][0]["reads"].get<uint64_t>();
  EXPECT_GE(reads, 95u);
  EXPECT_LE(reads, 101u);
}

TEST_F(GuestBench, OtherDataThanThePatternIsToldWithItsSector) {
  std::vector<std::byte> bytes(kDiskBytes);
  fill_pattern(bytes.data(), bytes.size(), 0);
  bytes[5 * 4096] ^= std::byte{1};
  const Outcome outcome = bench(dir_.make_file("bad.img", bytes), {"--verify", "--rw", "read"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("other data than the disk's pattern, sector 40"));
}

TEST_F(GuestBench, WrongWordsGiveOneLine) {
  const std::string disk = "null:size=1G";
  for (const Arguments& wrong :
       {Arguments{"--vmm", "xen"}, Arguments{"--bs", "1000"}, Arguments{"--cpus", "0"},
        Arguments{"--depth", "200"}, Arguments{"--rate", "x"}}) {
    const Outcome outcome = bench(disk, wrong);
    EXPECT_EQ(outcome.status, 120);
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(wrong[0] + " " + wrong[1]));
  }
}

TEST_F(GuestBench, ADiskThatIsNotThereIsTold) {
  const Outcome outcome = bench(dir_.path("nowhere.img"), {});
  EXPECT_EQ(outcome.status, 120);
  EXPECT_THAT(outcome.err, HasSubstr("nowhere.img"));
}

TEST_F(GuestBench, DataIsNotOverwrittenUnasked) {
  const Outcome outcome = bench(pattern_disk(), {"--rw", "randwrite"});
  EXPECT_EQ(outcome.status, 120);
  EXPECT_THAT(outcome.err, HasSubstr("--overwrite"));
}

}  // namespace
}  // namespace skiff::payload
