// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff experiment` as users start it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/guest/skiff_process.h"
#include "tests/temp_dir.h"

namespace skiff::vmm {
namespace {

using guest::Outcome;
using guest::run_skiff;
using guest::SkiffProcess;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

constexpr const char* kNullRun = R"({"name": "null", "bench": "disk",
  "options": {"file": "null:size=1G", "engine": ["sync", "io_uring"], "duration": 0.05}})";

class ExperimentEndToEnd : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(dir_.path(name)) << text;
    return dir_.path(name);
  }
  std::string read(const std::string& name) {
    std::ifstream file(dir_.path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // An experiment with these runs, and these members more.
  std::string experiment(const std::string& runs, const std::string& more = "") {
    return write("e.json", R"({"name": "e", "rounds": 3, "warm-up": 0, )" + more + R"("runs": [)" +
                               runs + "]}");
  }
  Outcome run(const std::string& path, const Words& more = {}) {
    Words words = {"experiment", path, "--out", dir_.path("out")};
    words.insert(words.end(), more.begin(), more.end());
    return run_skiff(words);
  }
  json results() { return json::parse(read("out.json")); }

  TempDir dir_;
};

TEST_F(ExperimentEndToEnd, MeasuresEachCellInEachRoundAndReports) {
  const Outcome outcome =
      run(experiment(kNullRun, R"("compare": "engine", "question": "Which?", )"));
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("out.html"));
  EXPECT_THAT(outcome.err, HasSubstr("order by seed 1"));
  EXPECT_THAT(outcome.err, HasSubstr("[9/9"));
  const json result = results();
  ASSERT_EQ(result["cells"].size(), 3u);  // Two, and the first once more.
  for (const json& cell : result["cells"]) {
    ASSERT_EQ(cell["rounds"].size(), 3u);
    for (const json& round : cell["rounds"]) {
      EXPECT_GT(round["metrics"]["iops"].get<double>(), 0);
      EXPECT_FALSE(round["histogram_ns"].get<std::string>().empty());
    }
    EXPECT_GT(cell["summary"]["lat_ns.p50"]["median"].get<double>(), 0);
  }
  const std::string page = read("out.html");
  EXPECT_THAT(page, HasSubstr("Which?"));
  EXPECT_THAT(page, HasSubstr("<svg"));
  EXPECT_THAT(page, HasSubstr("A/A"));
}

TEST_F(ExperimentEndToEnd, ItsResultsCanBeCompared) {
  const std::string path = experiment(kNullRun, R"("compare": "engine", )");
  ASSERT_EQ(run(path).status, 0);
  const Outcome outcome =
      run_skiff({"experiment", "--compare", dir_.path("out.json"), dir_.path("out.json")});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("1.000 ("));
  EXPECT_THAT(outcome.out, HasSubstr("0 differences exceed the spread"));
  EXPECT_EQ(run_skiff({"experiment", "--compare", path, path}).status, 120);
}

TEST_F(ExperimentEndToEnd, FilesAreMadeFullAndRemoved) {
  const std::string runs = R"({"name": "r", "bench": "command", "command": ["sh", "-c",
    "test $(stat -c '%s %b' '${disk}' | tr ' ' '_') = 65536_128 && echo '[{\"iops\": 1}]'"]})";
  const Outcome outcome = run(
      experiment(runs, R"("files": {"disk": {"size": "64K", "in": ")" + dir_.path() + "\"}}, "));
  EXPECT_EQ(outcome.status, 0) << outcome.err << read("out.json");
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path()))
    EXPECT_THAT(entry.path().string(), Not(HasSubstr("skiff-experiment-")));
}

TEST_F(ExperimentEndToEnd, AGivenFileIsUsedAndLeftAlone) {
  const std::string disk = dir_.make_file("mine.img", pattern(65536));
  const std::string runs = R"({"name": "r", "bench": "disk",
    "options": {"file": "${disk}", "duration": 0.02, "engine": "sync"}})";
  const std::string path = experiment(runs, R"("files": {"disk": {"size": "64K"}}, )");
  EXPECT_EQ(run(path, {"--file", "disk=" + disk}).status, 0);
  EXPECT_EQ(dir_.read_file("mine.img"), pattern(65536));
  EXPECT_THAT(read("out.html"), HasSubstr("mine.img"));
  EXPECT_EQ(run(path, {"--file", "tape=" + disk}).status, 120);
}

TEST_F(ExperimentEndToEnd, ACellThatFailsOrHangsIsReportedAndTheRestGoesOn) {
  const std::string runs = std::string(kNullRun) + R"(,
    {"name": "bad", "bench": "command", "command": ["sh", "-c", "echo no such luck >&2; exit 7"]},
    {"name": "mute", "bench": "command", "command": ["true"]},
    {"name": "slow", "bench": "command", "command": ["sleep", "1000"]})";
  const Outcome outcome = run(experiment(runs, R"("timeout": 1, "pairs": "none", )"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("Some cells failed"));
  const json result = results();
  ASSERT_EQ(result["cells"].size(), 5u);
  EXPECT_EQ(result["cells"][0]["rounds"].size(), 3u);
  // Given up after two.
  for (const size_t failing : {2u, 3u, 4u})
    EXPECT_EQ(result["cells"][failing]["rounds"].size(), 2u) << failing;
  const auto failure = [&](size_t cell) {
    return result["cells"][cell]["rounds"][0]["failure"].get<std::string>();
  };
  EXPECT_EQ(failure(2), "Exit status 7: no such luck");
  EXPECT_THAT(failure(3), HasSubstr("not JSON"));
  EXPECT_THAT(failure(4), HasSubstr("timeout"));
  EXPECT_THAT(read("out.html"), HasSubstr("no such luck"));
}

TEST_F(ExperimentEndToEnd, AnInterruptLeavesAReportOfWhatWasMeasured) {
  const std::string runs = std::string(kNullRun) + R"(,
    {"name": "endless", "bench": "command", "command": ["sleep", "1000"]})";
  // Rounds enough that some cells come before the one that never ends.
  const std::string path = experiment(runs, R"("pairs": "none", )");
  SkiffProcess process({"experiment", path, "--out", dir_.path("out"), "--seed", "1"});
  ASSERT_TRUE(process.wait_for_errors("IOPS"));
  process.signal(SIGINT);
  const Outcome outcome = process.finish();
  EXPECT_EQ(outcome.status, 123) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("so far"));
  EXPECT_TRUE(results()["interrupted"].get<bool>());
  EXPECT_THAT(read("out.html"), HasSubstr("interrupted"));
}

TEST_F(ExperimentEndToEnd, CopiesRunTogetherAndAreCounted) {
  const std::string runs = R"({"name": "fleet", "bench": "disk", "options": {
    "file": "null:size=1G,latency=1ms", "duration": 1.5, "copies": [1, 3]}})";
  const Outcome outcome =
      run(experiment(runs, R"("compare": "copies", "pairs": "none", )"), {"--rounds", "1"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const json cells = results()["cells"];
  ASSERT_EQ(cells.size(), 2u);
  const auto metric = [&](size_t cell, const char* name) {
    return cells[cell]["rounds"][0]["metrics"][name].get<double>();
  };
  // A millisecond each: the copies hardly take anything from each other.
  EXPECT_GT(metric(1, "iops"), 1.5 * metric(0, "iops"));
  EXPECT_GE(metric(1, "threads"), 3 * 2);
  EXPECT_GT(metric(1, "anonymous_bytes"), metric(0, "anonymous_bytes"));
  EXPECT_GT(metric(1, "fairness.jain"), 0.5);
}

TEST_F(ExperimentEndToEnd, TheOrderIsThatOfTheSeed) {
  const auto order = [&](const std::string& seed) {
    const Outcome outcome =
        run(experiment(R"({"name": "r", "bench": "command", "options": {"n": [1, 2, 3, 4, 5]},
          "command": ["echo", "[{\"iops\": ${n}}]"]})",
                       R"("pairs": "none", )"),
            {"--seed", seed});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    std::string digits;
    for (size_t at = 0; (at = outcome.err.find("r, n ", at)) != std::string::npos; ++at)
      digits += outcome.err[at + 5];
    return digits;
  };
  const std::string first = order("1");
  EXPECT_EQ(first.size(), 15u);
  EXPECT_EQ(first, order("1"));
  EXPECT_NE(first, order("2"));
  for (size_t round = 0; round < 3; ++round) {
    const std::string part = first.substr(5 * round, 5);
    EXPECT_EQ((std::set<char>(part.begin(), part.end()).size()), 5u) << part;
  }
}

TEST_F(ExperimentEndToEnd, ListNamesTheCellsAndMeasuresNothing) {
  const Outcome outcome = run_skiff({"experiment", experiment(kNullRun), "--list"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.out, HasSubstr("null, engine io_uring\n"));
  EXPECT_FALSE(std::filesystem::exists(dir_.path("out.json")));
}

TEST_F(ExperimentEndToEnd, WhatIsWrongIsSaidBeforeAnythingIsMeasured) {
  const Outcome missing = run_skiff({"experiment", dir_.path("none.json")});
  EXPECT_EQ(missing.status, 120);
  EXPECT_THAT(missing.err, HasSubstr("none.json"));
  const Outcome wrong = run(experiment(R"({"name": "r", "bench": "disk", "options": {
    "file": "null:", "depth": [1, 0]}})"));
  EXPECT_EQ(wrong.status, 120);
  EXPECT_THAT(wrong.err, HasSubstr("--depth 0"));
  const Outcome nowhere =
      run_skiff({"experiment", experiment(kNullRun), "--out", dir_.path("no/such/folder/out")});
  EXPECT_EQ(nowhere.status, 120);
  EXPECT_THAT(nowhere.err, HasSubstr("cannot be written"));
  EXPECT_EQ(run_skiff({"experiment"}).status, 120);
}

TEST_F(ExperimentEndToEnd, ASimulationPrintsCostsErrorsAndArrangements) {
  const Outcome outcome = run_skiff({"experiment", "--simulate", "vcpus=4,cores=8,duration=20ms",
                                     "--costs", write("costs.json", R"({"exit_ns": 4321})")});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("4321"));
  EXPECT_THAT(outcome.out, HasSubstr("1 + 1 at"));
  EXPECT_THAT(outcome.out, HasSubstr("2 + 2 at"));
  EXPECT_THAT(outcome.out, HasSubstr("one IOThread"));
  EXPECT_THAT(outcome.out, HasSubstr("each vCPU itself"));
}

}  // namespace
}  // namespace skiff::vmm
