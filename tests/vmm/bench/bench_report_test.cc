// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "loop/latency_histogram.h"
#include "vmm/bench/bench_result.h"
#include "vmm/bench/cdf_plot.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RoundSample round_of(uint64_t ios, double seconds) {
  RoundSample round;
  round.seconds = seconds;
  round.reads = ios;
  round.cpu_ns = static_cast<int64_t>(ios) * 2000;
  round.context_switches = ios / 2;
  for (uint64_t i = 0; i < ios; ++i) round.latency.record(1000 * (static_cast<int64_t>(i) + 1));
  return round;
}

EngineResult engine_of(std::string name, std::vector<RoundSample> rounds) {
  return {.engine = std::move(name), .rounds = std::move(rounds), .syscalls = SyscallCount{30, 20}};
}

DiskBenchOptions options_of(const std::string& path = "disk.img") {
  DiskBenchOptions options;
  options.path = path;
  options.duration_ns = 3'000'000'000;
  return options;
}

TEST(BenchResult, TheMiddleOfTheRoundsCountsAndNotTheirMean) {
  const auto result = engine_of("sync", {round_of(100, 1), round_of(1000, 1), round_of(110, 1)});
  const EngineSummary summary = summarise(result);
  EXPECT_DOUBLE_EQ(summary.iops.median, 110);
  EXPECT_DOUBLE_EQ(summary.iops.least, 100);
  EXPECT_DOUBLE_EQ(summary.iops.most, 1000);
  EXPECT_DOUBLE_EQ(summary.cpu_ns_per_io, 2000);
  EXPECT_DOUBLE_EQ(summary.switches_per_io, 0.5);
  EXPECT_DOUBLE_EQ(*summary.syscalls_per_io, 1.5);
  EXPECT_EQ(summary.latency.count(), 1210u);
}

TEST(BenchResult, RatiosAreThoseOfEachRound) {
  // The host became twice as slow after the first round: the ratio does not care.
  const auto fast = engine_of("a", {round_of(400, 1), round_of(200, 1)});
  const auto slow = engine_of("b", {round_of(200, 1), round_of(100, 1)});
  const Spread ratio = ratio_of(fast, slow);
  EXPECT_DOUBLE_EQ(ratio.least, 2);
  EXPECT_DOUBLE_EQ(ratio.most, 2);
}

TEST(BenchResult, ARoundWithoutAnyIoDividesByNothing) {
  const EngineSummary summary = summarise({.engine = "sync", .rounds = {RoundSample{}}});
  EXPECT_EQ(summary.iops.median, 0);
  EXPECT_EQ(summary.cpu_ns_per_io, 0);
  EXPECT_FALSE(summary.syscalls_per_io);
  EXPECT_EQ(summarise({}).iops.median, 0);
}

TEST(BenchReport, JsonHasAnObjectForEachEngine) {
  const std::vector results = {engine_of("sync", {round_of(100, 0.5)}),
                               engine_of("io_uring", {round_of(200, 0.5)})};
  const auto json = nlohmann::json::parse(bench_json(options_of(), results));
  ASSERT_TRUE(json.is_array());
  ASSERT_EQ(json.size(), 2u);
  const auto& first = json[0];
  EXPECT_EQ(first["engine"], "sync");
  EXPECT_DOUBLE_EQ(first["iops"].get<double>(), 200);
  EXPECT_DOUBLE_EQ(first["bytes_per_second"].get<double>(), 200 * 4096);
  EXPECT_DOUBLE_EQ(first["syscalls_per_io"].get<double>(), 1.5);
  EXPECT_THAT(first["syscalls_counted_by"].get<std::string>(), HasSubstr("sys_enter"));
  EXPECT_EQ(first["rounds"].size(), 1u);
  const auto& latency = first["lat_ns"];
  EXPECT_DOUBLE_EQ(latency["mean"].get<double>(), 50'500);
  EXPECT_NEAR(latency["p50"].get<double>(), 50'000, 50'000 / 32.0);
  EXPECT_NEAR(latency["p99"].get<double>(), 99'000, 99'000 / 32.0);
  EXPECT_NEAR(latency["p999"].get<double>(), 100'000, 100'000 / 32.0);
  EXPECT_EQ(latency["max"], 100'000);
  EXPECT_EQ(json[1]["engine"], "io_uring");
}

TEST(BenchReport, JsonSurvivesAPathThatIsNoText) {
  const std::string text = bench_json(options_of("a\xff\"b"), std::vector{engine_of("sync", {})});
  EXPECT_TRUE(nlohmann::json::accept(text));
}

TEST(BenchReport, TheTableComparesWithTheFirstEngine) {
  const std::vector results = {engine_of("sync", {round_of(100, 1), round_of(100, 1)}),
                               engine_of("threads", {round_of(50, 1), round_of(50, 1)})};
  const std::string table = bench_table(options_of(), results);
  EXPECT_THAT(table, HasSubstr("threads    IOPS of the rounds 50 to 50; 0.500 times sync"));
}

TEST(BenchReport, AnEngineThatChoosesSaysWhatItChose) {
  std::vector results = {engine_of("sync", {round_of(8, 1)}),
                         engine_of("auto", {round_of(4, 1), round_of(4, 1)})};
  results[1].rounds[0].chosen.inline_calls = 3;
  results[1].rounds[0].chosen.ring_waits = 1;
  results[1].rounds[1].chosen.inline_calls = 3;
  results[1].rounds[1].chosen.pool_calls = 1;
  EXPECT_THAT(bench_table(options_of(), results),
              HasSubstr("auto: 75.0 % by a blocking call, 12.5 % alone on the ring"));
  const auto json = nlohmann::json::parse(bench_json(options_of(), results));
  EXPECT_FALSE(json[0].contains("chosen"));
  EXPECT_EQ(json[1]["chosen"]["inline"], 6);
  EXPECT_EQ(json[1]["chosen"]["pool"], 1);
}

TEST(BenchReport, TheTableSaysWhenNotAllSystemCallsWereCounted) {
  std::vector results = {engine_of("sync", {round_of(100, 1)})};
  EXPECT_THAT(bench_table(options_of(), results), Not(HasSubstr("System calls")));
  results[0].syscalls->all = false;
  EXPECT_THAT(bench_table(options_of(), results), HasSubstr(">=1.5"));
  EXPECT_THAT(bench_table(options_of(), results), HasSubstr("System calls: only those"));
}

TEST(BenchReport, TheTableSaysThatARateWasNotReached) {
  std::vector results = {engine_of("sync", {round_of(100, 1)})};
  results[0].rounds[0].missed = 17;
  DiskBenchOptions options = options_of();
  options.rate = 1000;
  EXPECT_THAT(bench_table(options, results), HasSubstr("17 I/Os were due"));
}

// Tags open and close in order, and nothing but ASCII is in it: enough to be well formed, with
// attributes that we write ourselves.
void expect_well_formed(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t at = svg.find('<'); at != std::string::npos; at = svg.find('<', at + 1)) {
    const size_t end = svg.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = svg.substr(at + 1, end - at - 1);
    ASSERT_EQ(tag.find('<'), std::string::npos) << tag;
    if (tag.starts_with('?') || tag.ends_with('/')) continue;
    if (tag.starts_with('/')) {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), tag.substr(1));
      open.pop_back();
      continue;
    }
    open.push_back(tag.substr(0, tag.find(' ')));
  }
  EXPECT_TRUE(open.empty());
  for (const char c : svg) EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f));
}

TEST(CdfPlot, IsWellFormedWhateverThePath) {
  loop::LatencyHistogram latency;
  for (int64_t ns = 1000; ns < 2'000'000; ns += 500) latency.record(ns);
  const std::vector<CdfCurve> curves = {{"sync", &latency}, {"<&\x01\xff", &latency}};
  const std::string svg = cdf_svg("a<b>&\"c\".img", curves);
  expect_well_formed(svg);
  EXPECT_THAT(svg, HasSubstr(">sync</text>"));
  EXPECT_THAT(svg, HasSubstr("&lt;&amp;??"));
}

TEST(CdfPlot, CurvesRiseAndStayInTheFrame) {
  loop::LatencyHistogram latency;
  for (int64_t i = 0; i < 100'000; ++i) latency.record(50'000 + i);
  latency.record(int64_t{1} << 40);  // One beyond the axis.
  const std::vector<CdfCurve> curves = {{"sync", &latency}};
  const std::string svg = cdf_svg("x", curves);
  size_t at = svg.find("points=\"") + 8;
  double last_x = 0;
  double last_y = 1e9;
  int points = 0;
  while (svg[at] != '"') {
    size_t used = 0;
    const double x = std::stod(svg.substr(at, 16), &used);
    at += used + 1;
    const double y = std::stod(svg.substr(at, 16), &used);
    at += used + 1;
    EXPECT_GE(x, last_x);
    EXPECT_LE(y, last_y);
    EXPECT_TRUE(x >= 80 && x <= 840 && y >= 50 && y <= 440) << x << "," << y;
    last_x = x;
    last_y = y;
    ++points;
  }
  EXPECT_GT(points, 100);
  EXPECT_DOUBLE_EQ(last_y, 50);
}

TEST(CdfPlot, NoRequestsAreAnEmptyFrame) {
  const loop::LatencyHistogram latency;
  const std::vector<CdfCurve> curves = {{"sync", &latency}};
  const std::string svg = cdf_svg("x", curves);
  expect_well_formed(svg);
  EXPECT_EQ(svg.find("polyline"), std::string::npos);
}

}  // namespace
}  // namespace skiff::vmm
