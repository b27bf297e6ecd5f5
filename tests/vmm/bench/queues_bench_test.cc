// SPDX-License-Identifier: GPL-2.0-or-later
// Many queues on one device, driven by the code that the payload guest uses: data arrives, rates
// are kept, whatever serves them.
#include "vmm/bench/queues_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/temp_dir.h"
#include "vmm/bench/driver/disk_pattern.h"
#include "vmm/bench/queues_options.h"
#include "vmm/bench/queues_report.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;

constexpr size_t kDiskBytes = size_t{8} * 4096;  // Each queue writes all of it soon.

QueuesBenchWords words(const std::string& path = "null:size=1G") {
  QueuesBenchWords words;
  words.path = path;
  words.duration = "0.1";
  return words;
}

std::string refusal_of(const QueuesBenchWords& given) {
  const auto options = parse_queues_bench(given);
  return options ? "" : options.error().message();
}

std::vector<QueuesResult> run(const QueuesBenchWords& given) {
  const auto options = parse_queues_bench(given);
  EXPECT_TRUE(options) << options.error().message();
  if (!options) return {};
  auto results = run_queues(*options, [](const std::string&, uint32_t, double) {});
  EXPECT_TRUE(results) << results.error().message();
  return results ? *std::move(results) : std::vector<QueuesResult>{};
}

struct Way {
  const char* submit;
  const char* completion;
};
class QueuesBench : public ::testing::TestWithParam<Way> {
 protected:
  QueuesBenchWords way(QueuesBenchWords given) const {
    given.submit = GetParam().submit;
    given.completion = GetParam().completion;
    return given;
  }
  TempDir dir_;
};

TEST_P(QueuesBench, WhatIsWrittenIsRead) {
  const std::string disk = dir_.make_sparse("disk.img", kDiskBytes);
  QueuesBenchWords writing = way(words(disk));
  writing.queues = "3";
  writing.threads = "2";
  writing.depth = "2";
  writing.rw = "write";
  writing.duration = "0.3";
  writing.verify = true;
  const auto written = run(writing);
  ASSERT_EQ(written.size(), 1u);
  ASSERT_GE(written[0].rounds[0].requests, 3 * kDiskBytes / 4096);
  const auto bytes = dir_.read_file("disk.img");
  EXPECT_TRUE(is_pattern(bytes.data(), bytes.size(), 0));

  QueuesBenchWords reading = way(words(disk));
  reading.queues = "3";
  reading.depth = "2";
  reading.verify = true;
  const auto read = run(reading);
  ASSERT_EQ(read.size(), 1u);
  EXPECT_GT(read[0].rounds[0].measured, 0u);
}

TEST_P(QueuesBench, ARateIsKeptOnEveryQueue) {
  QueuesBenchWords rated = way(words());
  rated.queues = "16";
  rated.rate = "100";
  rated.duration = "0.5";
  const auto results = run(rated);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_NEAR(static_cast<double>(results[0].rounds[0].measured), 800, 16);
  EXPECT_GT(results[0].rounds[0].serving_ns(results[0].drivers_serve), 0);
}

INSTANTIATE_TEST_SUITE_P(Ways, QueuesBench,
                         ::testing::Values(Way{"iothread", "poll"}, Way{"iothread", "irq"},
                                           Way{"poll", "poll"}, Way{"poll", "irq"},
                                           Way{"vcpu", "poll"}, Way{"vcpu", "irq"}),
                         [](const auto& param) {
                           return std::string(param.param.submit) + "_" + param.param.completion;
                         });

TEST(QueuesBenchReport, HasAnObjectForEachDevice) {
  QueuesBenchWords given = words();
  given.submit = "iothread,poll";
  given.rounds = "1";
  given.queues = "2";
  const auto options = parse_queues_bench(given);
  ASSERT_TRUE(options);
  const auto results = run(given);
  ASSERT_EQ(results.size(), 2u);
  const auto json = nlohmann::json::parse(queues_json(*options, results), nullptr, false);
  ASSERT_TRUE(json.is_object());
  ASSERT_EQ(json["results"].size(), 2u);
  EXPECT_EQ(json["results"][1]["submit"], "poll");
  EXPECT_GT(json["results"][0]["iops"].get<double>(), 0);
  EXPECT_GT(json["results"][0]["serving_cpu_ns_per_request"].get<double>(), 0);
  EXPECT_FALSE(json["results"][0]["rounds"][0]["threads"].empty());
  EXPECT_THAT(queues_table(*options, results), HasSubstr("iothread auto"));
}

TEST(QueuesBenchErrors, ASocketWhereNobodyListensIsTheErrorOfThatDevice) {
  QueuesBenchWords given = words();
  given.sockets = {"/nowhere/disk.sock"};
  given.rounds = "1";
  const auto results = run(given);
  ASSERT_EQ(results.size(), 2u);
  EXPECT_FALSE(results[0].error);
  EXPECT_TRUE(results[1].error);
}

TEST(QueuesBenchErrors, DataIsNotOverwrittenUnasked) {
  const TempDir dir;
  const std::vector<std::byte> bytes(4096, std::byte{1});
  QueuesBenchWords given = words(dir.make_file("data.img", bytes));
  given.rw = "write";
  const auto results =
      run_queues(*parse_queues_bench(given), [](const std::string&, uint32_t, double) {});
  ASSERT_FALSE(results);
  EXPECT_THAT(results.error().message(), HasSubstr("--overwrite"));
}

TEST(QueuesBenchOptions, WhatCannotBeIsRefusedWithWhatIsAllowed) {
  const auto with = [](std::string QueuesBenchWords::* member, const char* value) {
    QueuesBenchWords given = words();
    given.*member = value;
    return refusal_of(given);
  };
  EXPECT_THAT(with(&QueuesBenchWords::queues, "65"), HasSubstr("--queues 65: allowed: 1 to 64"));
  EXPECT_THAT(with(&QueuesBenchWords::threads, "2"), HasSubstr("at most --queues"));
  EXPECT_THAT(with(&QueuesBenchWords::depth, "86"), HasSubstr("1 to 85"));
  EXPECT_THAT(with(&QueuesBenchWords::submit, "auto"), HasSubstr("iothread, vcpu, poll, none"));
  EXPECT_THAT(with(&QueuesBenchWords::submit, "none"), HasSubstr("--vhost-user"));
  EXPECT_THAT(with(&QueuesBenchWords::completion, "x"), HasSubstr("poll or irq"));
  EXPECT_THAT(with(&QueuesBenchWords::path, ""), HasSubstr("no FILE"));
}

}  // namespace
}  // namespace skiff::vmm
