// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/experiment_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/vmm/experiment/experiment_fixtures.h"
#include "vmm/experiment/compare_results.h"

namespace skiff::vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ExperimentResult, RoundsThatFailedOrWereSetAsideDoNotCount) {
  CellResult cell = made_cell("a", {1, 2, 3});
  cell.rounds[1].set_aside = true;
  cell.rounds.push_back(failed_round(4, "broken"));
  cell.rounds.push_back(failed_round(0, "broken while it warmed up"));
  EXPECT_THAT(values_of(cell, "iops"), ElementsAre(1, 3));
  EXPECT_TRUE(values_of(cell, "no_such").empty());
  EXPECT_EQ(first_failure(cell), "broken");
  EXPECT_EQ(latency_of(cell)->count(), 2000u);
}

TEST(ExperimentResult, RatiosAreThoseOfRoundsThatBothHave) {
  CellResult one = made_cell("a", {20, 30, 1000});
  const CellResult other = made_cell("b", {10, 15, 1});
  one.rounds[2].set_aside = true;
  const auto ratio = paired_ratio(one, other, "iops");
  ASSERT_TRUE(ratio);
  EXPECT_DOUBLE_EQ(ratio->middle, 2);
  EXPECT_DOUBLE_EQ(ratio->high, 2);
  EXPECT_FALSE(paired_ratio(one, other, "no_such"));
}

TEST(ExperimentResult, TheSpreadIsThatOfTheTwinInItsGroup) {
  const ExperimentResult result = made_result();
  const auto spread = group_spread(result, "g", "iops");
  ASSERT_TRUE(spread);
  EXPECT_GT(*spread, 0.01);
  EXPECT_LT(*spread, 0.05);
  EXPECT_FALSE(group_spread(result, "another", "iops"));
}

TEST(ExperimentResult, ADifferenceCountsWhenItIsBeyondIntervalAndSpread) {
  EXPECT_EQ(judge({1.2, 1.1, 1.3}, 0.05, 5), Verdict::kMore);
  EXPECT_EQ(judge({0.8, 0.7, 0.9}, 0.05, 5), Verdict::kLess);
  EXPECT_EQ(judge({1.2, 0.9, 1.3}, 0.05, 5), Verdict::kWithinSpread);  // The interval has 1 in it.
  EXPECT_EQ(judge({1.2, 1.1, 1.3}, 0.25, 5), Verdict::kWithinSpread);  // So much is chance.
  EXPECT_EQ(judge({0.8, 0.7, 0.9}, 0.3, 5), Verdict::kWithinSpread);
  EXPECT_EQ(judge({1.2, 1.1, 1.3}, std::nullopt, 5), Verdict::kUnknown);
  EXPECT_EQ(judge({1.2, 1.1, 1.3}, 0.05, 2), Verdict::kUnknown);
}

TEST(ExperimentJson, AResultComesBackAsItWas) {
  ExperimentResult result = made_result();
  result.interrupted = true;
  result.metrics = {"switches_per_io"};
  result.cells[2].rounds[0].set_aside = true;
  result.cells[2].rounds[0].steal_percent = 3.5;
  result.cells[2].rounds.push_back(failed_round(6, "It said: \xff\x01 <no>"));
  const auto back = parse_experiment_json(experiment_json(result));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->name, "made");
  EXPECT_EQ(back->question, result.question);
  EXPECT_EQ(back->compare, "engine");
  EXPECT_EQ(back->seed, 42u);
  EXPECT_TRUE(back->interrupted);
  EXPECT_EQ(back->machine, result.machine);
  ASSERT_EQ(back->cells.size(), 3u);
  EXPECT_EQ(back->cells[1].cell.is_twin, true);
  EXPECT_EQ(back->cells[2].cell.options, result.cells[2].cell.options);
  EXPECT_EQ(values_of(back->cells[2], "iops"), values_of(result.cells[2], "iops"));
  EXPECT_EQ(back->cells[2].rounds[0].steal_percent, 3.5);
  EXPECT_THAT(first_failure(back->cells[2]), HasSubstr("It said"));
  EXPECT_EQ(latency_of(back->cells[0])->percentile_ns(50),
            latency_of(result.cells[0])->percentile_ns(50));
}

TEST(ExperimentJson, OtherFilesAreRefusedByName) {
  const auto error = [](std::string_view json) {
    const auto result = parse_experiment_json(json);
    return result ? std::string("no error") : result.error().message();
  };
  EXPECT_THAT(error("[]"), HasSubstr("object"));
  EXPECT_THAT(error(R"({"name": "e", "runs": []})"), HasSubstr("not the JSON that an experiment"));
  EXPECT_THAT(error(R"({"skiff_experiment": 2})"), HasSubstr("another version"));
  EXPECT_THAT(error(R"({"skiff_experiment": 1, "cells": 5})"), HasSubstr("cells: 5"));
  EXPECT_THAT(error(R"({"skiff_experiment": 1, "cells": [{"rounds": [{"metrics": {"a": "b"}}]}]})"),
              HasSubstr("cells[0].rounds.metrics"));
}

TEST(CompareResults, SaysWhichDifferencesExceedTheSpread) {
  const ExperimentResult before = made_result();
  ExperimentResult after = made_result();
  // The fast one lost half, the slow one stayed where it was.
  for (CellRound& round : after.cells[2].rounds) {
    round.sample->metrics["iops"] /= 2;
    round.sample->metrics["lat_ns.p50"] *= 2;
  }
  const std::string text = compare_text(before, after);
  const std::string slow = text.substr(0, text.find("fast\n"));
  EXPECT_THAT(slow, HasSubstr("within the spread"));
  EXPECT_THAT(slow, Not(HasSubstr("worse")));
  EXPECT_THAT(text, HasSubstr("0.500 (0."));
  EXPECT_THAT(text, HasSubstr("worse"));
  EXPECT_THAT(text, Not(HasSubstr("better")));
  EXPECT_THAT(text, HasSubstr("2 differences exceed the spread, 2 do not, 0 cannot be told"));
}

TEST(CompareResults, CellsOfOnlyOneAndOtherMachinesAreSaid) {
  ExperimentResult before = made_result();
  ExperimentResult after = made_result();
  after.machine[1].second = "Linux 0.02";
  before.cells.push_back(made_cell("gone", {1}));
  after.cells.push_back(made_cell("new", {1}));
  const std::string text = compare_text(before, after);
  EXPECT_THAT(text, HasSubstr("gone: only in the first"));
  EXPECT_THAT(text, HasSubstr("new: only in the second"));
  EXPECT_THAT(text, HasSubstr("Kernel: Linux 0.01 -> Linux 0.02"));
}

TEST(CompareResults, FewRoundsDecideNothing) {
  ExperimentResult before = made_result();
  ExperimentResult after = made_result();
  for (CellResult& cell : after.cells) {
    cell.rounds.resize(2);
    for (CellRound& round : cell.rounds) round.sample->metrics["iops"] *= 10;
  }
  EXPECT_THAT(compare_text(before, after), HasSubstr("0 differences exceed the spread"));
}

}  // namespace
}  // namespace skiff::vmm
