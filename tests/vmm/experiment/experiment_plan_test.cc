// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/experiment_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace skiff::vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// An experiment of one run with these members, and these of its own.
std::string with_run(const std::string& run, const std::string& more = "") {
  return R"({"name": "e", )" + more + R"("runs": [{)" + run + "}]}";
}
std::string disk_run(const std::string& options, const std::string& more = "") {
  return with_run(R"("name": "r", "bench": "disk", "options": {)" + options + "}", more);
}

std::string error_of(const std::string& json) {
  const auto plan = parse_experiment(json);
  if (!plan) return plan.error().message();
  const auto cells = expand_experiment(*plan, {});
  return cells ? "no error" : cells.error().message();
}

std::vector<ExperimentCell> cells_of(const std::string& json) {
  const auto plan = parse_experiment(json);
  EXPECT_TRUE(plan) << plan.error().message();
  if (!plan) return {};
  auto cells = expand_experiment(*plan, {{"disk", "/tmp/disk"}});
  EXPECT_TRUE(cells) << cells.error().message();
  return cells ? *cells : std::vector<ExperimentCell>();
}

std::vector<std::string> names_of(const std::vector<ExperimentCell>& cells) {
  std::vector<std::string> names;
  for (const ExperimentCell& cell : cells) names.push_back(cell.name);
  return names;
}

TEST(ExperimentPlan, EveryKeyIsTaken) {
  const auto plan = parse_experiment(R"({
    // Comments are allowed.
    "name": "all-of-it", "question": "Why?", "rounds": 7, "warm-up": 2, "seed": 99, "timeout": 30,
    "pairs": "all", "compare": "depth", "steal-max": 2.5, "metrics": ["switches_per_io"],
    "files": {"disk": {"size": "1M", "in": "/dev/shm"}},
    "runs": [{"name": "one", "bench": "disk", "options": {"file": "${disk}", "depth": [1, 2]}},
             {"name": "two", "bench": "command", "command": ["prog", "${depth}"],
              "options": {"depth": 4}}]})");
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->name, "all-of-it");
  EXPECT_EQ(plan->question, "Why?");
  EXPECT_EQ(plan->rounds, 7u);
  EXPECT_EQ(plan->warm_up, 2u);
  EXPECT_EQ(plan->seed, 99u);
  EXPECT_EQ(plan->timeout_s, 30u);
  EXPECT_EQ(plan->pairs, ExperimentPairs::kAll);
  EXPECT_EQ(plan->compare, "depth");
  EXPECT_EQ(*plan->steal_percent_max, 2.5);
  EXPECT_THAT(plan->metrics, ElementsAre("switches_per_io"));
  ASSERT_EQ(plan->files.size(), 1u);
  EXPECT_EQ(plan->files[0].size_bytes, uint64_t{1} << 20);
  EXPECT_EQ(plan->files[0].directory, "/dev/shm");
  ASSERT_EQ(plan->runs.size(), 2u);
  EXPECT_THAT(plan->runs[1].command, ElementsAre("prog", "${depth}"));
}

TEST(ExperimentPlan, WrongKeysAndValuesAreNamedWithWhatIsAllowed) {
  struct Case {
    std::string json;
    std::vector<std::string> words;
  };
  const std::string good = R"("file": "null:")";
  const std::vector<Case> cases = {
      {"[]", {"object"}},
      {"{", {"not JSON"}},
      {std::string(100, '[') + std::string(100, ']'), {"32"}},
      {"{}", {"name", "missing"}},
      {R"({"name": "e"})", {"runs", "missing"}},
      {R"({"name": "e", "runs": []})", {"runs", "[]", "1 to 100"}},
      {R"({"name": "No such", "runs": []})", {"name", "No such"}},
      {disk_run(good, R"("round": 3, )"), {"round", "unknown", "rounds"}},
      {disk_run(good, R"("rounds": 0, )"), {"rounds", "0", "1 to 1000"}},
      {disk_run(good, R"("rounds": "3", )"), {"rounds", "\"3\"", "1 to 1000"}},
      {disk_run(good, R"("pairs": "some", )"), {"pairs", "some", "baseline"}},
      {disk_run(good, R"("steal-max": 101, )"), {"steal-max", "101", "100"}},
      {disk_run(good, R"("compare": "color", )"), {"compare", "color", "file"}},
      {disk_run(good, R"("files": {"d": {}}, )"), {"files.d.size", "missing"}},
      {disk_run(good, R"("files": {"d": {"size": "1"}}, )"), {"files.d.size", "64K"}},
      {disk_run(good, R"("files": {"d": {"sice": 1}}, )"), {"files.d.sice", "unknown", "size"}},
      {with_run(R"("bench": "disk")"), {"runs[0].name", "missing"}},
      {with_run(R"("name": "r")"), {"runs[0].bench", "missing", "queues"}},
      {with_run(R"("name": "r", "bench": "tape")"), {"runs[0].bench", "tape", "disk"}},
      {with_run(R"("name": "r", "bench": "command")"), {"runs[0].command", "missing"}},
      {with_run(R"("name": "r", "bench": "disk", "command": ["x"])"), {"runs[0].command"}},
      {with_run(R"("name": "r", "bench": "disk", "option": {})"), {"runs[0].option", "unknown"}},
      {disk_run(R"("depth": [])"), {"runs[0].options.depth", "[]", "list"}},
      {disk_run(R"("depth": [1, 1])"), {"runs[0].options.depth", "repeats"}},
      {disk_run(R"("depth": [1, true])"), {"runs[0].options.depth", "one kind"}},
      {disk_run(R"("depth": {"a": 1})"), {"runs[0].options.depth"}},
      {disk_run(R"("depth": null)"), {"runs[0].options.depth", "null"}},
      {disk_run(R"("--depth": 1)"), {"runs[0].options.--depth", "without dashes"}},
      {disk_run(R"("copies": 0)"), {"runs[0].options.copies", "1 to 256"}},
      // What the bench itself would refuse.
      {disk_run(R"("depth": 1)"), {"\"r\"", "options.file", "missing"}},
      {disk_run(good + R"(, "dept": 1)"), {"\"r\"", "options.dept", "unknown", "depth"}},
      {disk_run(good + R"(, "depth": 0)"), {"\"r\"", "depth", "0", "4096"}},
      {disk_run(good + R"(, "engine": "fast")"), {"\"r\"", "fast", "io_uring"}},
      {disk_run(good + R"(, "engine": "sync,threads")"), {"\"r\"", "engine", "list"}},
      {disk_run(good + R"(, "direct": 1)"), {"\"r\"", "direct", "true or false"}},
      {disk_run(R"("file": "${nothing}")"), {"\"r\"", "${nothing}", "unknown"}},
      {disk_run(R"("file": "${open")"), {"\"r\"", "closing brace"}},
      {with_run(R"("name": "r", "bench": "command", "command": ["p", "${x}"])"), {"${x}"}},
  };
  for (const Case& one : cases) {
    const std::string error = error_of(one.json);
    for (const std::string& word : one.words) EXPECT_THAT(error, HasSubstr(word)) << one.json;
  }
}

TEST(ExperimentPlan, TwoRunsOfOneNameAreRefused) {
  const std::string run = R"({"name": "r", "bench": "disk", "options": {"file": "null:"}})";
  EXPECT_THAT(error_of(R"({"name": "e", "runs": [)" + run + "," + run + "]}"),
              HasSubstr("runs[1].name"));
}

TEST(ExperimentPlan, MoreCellsThanAllowedAreRefusedWithoutBeingMade) {
  std::string list;
  for (int i = 1; i <= 200; ++i) list += (i == 1 ? "" : ", ") + std::to_string(i);
  std::string options = R"("file": "null:")";
  for (const char* option : {"depth", "jobs", "rate", "share", "iops"})
    options += std::string(", \"") + option + "\": [" + list + "]";
  EXPECT_THAT(error_of(disk_run(options)), HasSubstr("2000 cells"));
}

TEST(ExperimentCells, ListsAreMultipliedAndTheLastChangesFastest) {
  const auto cells = cells_of(disk_run(
      R"("file": "null:", "engine": ["sync", "io_uring"], "depth": [1, 32], "direct": true)",
      R"("pairs": "none", )"));
  EXPECT_THAT(names_of(cells),
              ElementsAre("r, engine sync, depth 1", "r, engine sync, depth 32",
                          "r, engine io_uring, depth 1", "r, engine io_uring, depth 32"));
  EXPECT_THAT(cells[3].words, ElementsAre("bench", "disk", "null:", "--engine", "io_uring",
                                          "--depth", "32", "--direct", "--json"));
}

TEST(ExperimentCells, FlagsThatAreOffLeaveNoWord) {
  const auto cells =
      cells_of(disk_run(R"("file": "null:", "direct": [false, true])", R"("pairs": "none", )"));
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_THAT(cells[0].words, ElementsAre("bench", "disk", "null:", "--json"));
  EXPECT_THAT(cells[1].words, ElementsAre("bench", "disk", "null:", "--direct", "--json"));
}

TEST(ExperimentCells, FilesAndOptionsAreReplacedInCommands) {
  const auto cells = cells_of(with_run(
      R"("name": "r", "bench": "command", "options": {"n": [1, 2], "where": "${disk}"},
         "command": ["prog", "--n=${n}", "${where}", "${disk}"])",
      R"("pairs": "none", "files": {"disk": {"size": "64K"}}, )"));
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_FALSE(cells[1].own_program);
  EXPECT_THAT(cells[1].words, ElementsAre("prog", "--n=2", "/tmp/disk", "/tmp/disk"));
}

TEST(ExperimentCells, TheFirstValueOfWhatIsComparedIsEachGroupsBaselineAndMeasuredTwice) {
  const auto cells =
      cells_of(disk_run(R"("file": "null:", "engine": ["sync", "threads"], "depth": [1, 8])",
                        R"("compare": "engine", )"));
  EXPECT_THAT(names_of(cells),
              ElementsAre("r, engine sync, depth 1", "r, engine sync, depth 1 (again)",
                          "r, engine sync, depth 8", "r, engine sync, depth 8 (again)",
                          "r, engine threads, depth 1", "r, engine threads, depth 8"));
  EXPECT_EQ(cells[0].group, cells[4].group);
  EXPECT_NE(cells[0].group, cells[5].group);
  for (size_t i = 0; i < cells.size(); ++i) {
    EXPECT_EQ(cells[i].is_baseline, i == 0 || i == 2) << i;
    EXPECT_EQ(cells[i].is_twin, i == 1 || i == 3) << i;
  }
}

TEST(ExperimentCells, RunsCanBeComparedWithEachOther) {
  const auto cells = cells_of(
      R"({"name": "e", "compare": "run", "pairs": "none", "runs": [
        {"name": "a", "bench": "disk", "options": {"file": "null:", "depth": [1, 2]}},
        {"name": "b", "bench": "command", "command": ["p"], "options": {"depth": [1, 2]}}]})");
  ASSERT_EQ(cells.size(), 4u);
  EXPECT_EQ(cells[0].group, cells[2].group);
  EXPECT_EQ(cells[1].group, cells[3].group);
  EXPECT_TRUE(cells[0].is_baseline);
  EXPECT_FALSE(cells[2].is_baseline);
}

TEST(RoundOrder, EachRoundMeasuresEachCellOnceInAnOrderOfItsOwn) {
  constexpr uint32_t kCells = 20;
  std::set<std::vector<uint32_t>> orders;
  for (uint32_t round = 0; round < 10; ++round) {
    auto order = round_order(5, round, kCells);
    orders.insert(order);
    std::ranges::sort(order);
    for (uint32_t i = 0; i < kCells; ++i) EXPECT_EQ(order[i], i);
  }
  EXPECT_EQ(orders.size(), 10u);
}

TEST(RoundOrder, IsThatOfItsSeed) {
  // For ever: a printed seed must mean the same order later, and on another machine.
  EXPECT_THAT(round_order(1, 0, 6), ElementsAre(5, 1, 4, 3, 2, 0));
  EXPECT_NE(round_order(1, 0, 6), round_order(2, 0, 6));
  EXPECT_TRUE(round_order(1, 0, 0).empty());
}

}  // namespace
}  // namespace skiff::vmm
