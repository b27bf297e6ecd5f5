// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/guest/guest_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vmm/bench/guest/guest_bench.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/guest/guest_report.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDocument = R"({"cpus": 1, "features": 4831838208,
  "capacity_sectors": 2097152, "ran_ns": 1200000000, "interrupts": 4, "spins": 9, "halts": 3,
  "queues": [{"cpu": 0, "reads": 2, "writes": 1, "requests": 5, "kicks": 4, "batches": 5,
              "behind_ns": 7}],
  "latency": {"count": 3, "sum_ns": 80, "max_ns": 50, "buckets": [10,1,20,1,50,1]}})";

std::string without(const std::string& text) {
  std::string document = kDocument;
  document.erase(document.find(text), text.size());
  return document;
}
std::string with(const std::string& text, const std::string& other) {
  std::string document = kDocument;
  return document.replace(document.find(text), text.size(), other);
}

TEST(GuestDocument, IsReadWhole) {
  const auto taken = parse_guest_document(kDocument);
  ASSERT_TRUE(taken) << taken.error().message();
  EXPECT_EQ(taken->reads, 2u);
  EXPECT_EQ(taken->writes, 1u);
  EXPECT_EQ(taken->requests, 5u);
  EXPECT_EQ(taken->kicks, 4u);
  EXPECT_EQ(taken->interrupts, 4u);
  EXPECT_EQ(taken->behind_ns, 7);
  EXPECT_EQ(taken->latency.count(), 3u);
  EXPECT_EQ(taken->latency.percentile_ns(50), 20);
  EXPECT_EQ(taken->latency.max_ns(), 50);
  EXPECT_NEAR(taken->mean_ns, 80.0 / 3, 0.01);
}

TEST(GuestDocument, WhatTheGuestSaysWentWrongIsTheError) {
  const auto taken =
      parse_guest_document(R"({"error": "a request failed", "sector": 8, "queue": 1})");
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().message(), "The guest says: a request failed, sector 8, queue 1");
}

TEST(GuestDocument, WhatIsNoneIsRefused) {
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{"), without("\"ran_ns\": 1200000000, "),
        without("\"kicks\": 4, "), with("10,1,20", "10,2,20"), with("10,1,20", "10,0,20"),
        with("10,1,20", "-1,1,20"), with("10,1,20", "99999,1,20"), with("50,1]", "50]"),
        with("\"reads\": 2", "\"reads\": \"2\"")}) {
    EXPECT_FALSE(parse_guest_document(text)) << text;
  }
}

GuestSample sample(double seconds, int64_t io_cpu_ns) {
  GuestSample sample;
  sample.guest = *parse_guest_document(kDocument);
  sample.seconds = seconds;
  sample.boot_ns = 20'000'000;
  sample.threads = {{.tid = 1, .name = "vcpu0", .cpu_ns = 1000, .guest_ns = 400},
                    {.tid = 2, .name = "io0", .cpu_ns = io_cpu_ns, .sleeps = 10}};
  return sample;
}

TEST(GuestSummary, TellsThreadsOfVcpusFromTheOthers) {
  const GuestSample one = sample(1, 500);
  EXPECT_DOUBLE_EQ(one.iops(), 3);
  EXPECT_DOUBLE_EQ(one.cpu_ns_per_request(), 300);
  EXPECT_DOUBLE_EQ(one.io_cpu_ns_per_request(), 100);
  EXPECT_DOUBLE_EQ(one.vcpu_host_ns_per_request(), 120);
  EXPECT_DOUBLE_EQ(one.sleeps_per_request(), 2);
  EXPECT_TRUE(is_vcpu_thread("CPU 0/KVM"));
  EXPECT_FALSE(is_vcpu_thread("IO io0"));
}

TEST(GuestReport, HasAnObjectForEachGuestAndTheFloor) {
  GuestBenchWords words;
  words.path = "disk.img";
  words.vmm = "skiff,qemu";
  const auto options = parse_guest_bench(words);
  ASSERT_TRUE(options);
  GuestBenchResults results;
  results.floor = EngineResult{.engine = "host sync"};
  RoundSample floor;
  floor.seconds = 1;
  floor.latency.record(10);
  results.floor->rounds.push_back(floor);
  results.guests.push_back({.name = "skiff auto", .rounds = {sample(1, 500), sample(2, 600)}});
  results.guests.back().counted["exits"] = 1.5;
  results.guests.push_back({.name = "qemu", .error = "it cannot be started"});

  const auto json = nlohmann::json::parse(guest_json(*options, results), nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["guests"].size(), 2u);
  EXPECT_EQ(json["guests"][0]["vmm"], "skiff");
  EXPECT_DOUBLE_EQ(json["guests"][0]["overhead_ns"].get<double>(), 80.0 / 3 - 10);
  EXPECT_DOUBLE_EQ(json["guests"][0]["exits_per_request"].get<double>(), 1.5);
  EXPECT_EQ(json["guests"][0]["rounds"].size(), 2u);
  EXPECT_EQ(json["guests"][1]["error"], "it cannot be started");
  const std::string table = guest_table(*options, results);
  EXPECT_THAT(table, HasSubstr("skiff auto"));
  EXPECT_THAT(table, HasSubstr("failed: it cannot be started"));
}

}  // namespace
}  // namespace skiff::vmm
