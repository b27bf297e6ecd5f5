// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/experiment/markdown_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/vmm/experiment/experiment_fixtures.h"
#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MarkdownReport, HasARowForEachCellWithItsRatioToTheBaseline) {
  const std::string text = markdown_report(made_result());
  EXPECT_THAT(text,
              HasSubstr("| g | IOPS | p50 us |\n|---|---|---|\n| slow | 100 (99.0 to 102) |"));
  EXPECT_THAT(text, HasSubstr("| slow (again) | 100 (99.0 to 103) x1.0"));
  EXPECT_THAT(text, HasSubstr("| fast | 200 (195 to 205) **x2.0"));
  EXPECT_THAT(text, HasSubstr("- CPU: Made-up \"CPU\"\n"));
}

TEST(MarkdownReport, ADifferenceWithinTheSpreadIsNotMarked) {
  ExperimentResult result = made_result();
  result.cells[2] = made_cell("fast", {101, 100, 102, 99, 100});
  EXPECT_THAT(markdown_report(result), Not(HasSubstr("**")));
}

TEST(MarkdownReport, HasColumnsOnlyForWhatItsGroupWasMeasuredFor) {
  ExperimentResult result = made_result();
  result.metrics = {"timer_lat_ns.p99"};
  result.cells.push_back(made_cell("guest", {7}));
  result.cells.back().cell.group = "h";
  result.cells.back().rounds[0].sample->metrics["timer_lat_ns.p99"] = 5000;
  const std::string text = markdown_report(result);
  EXPECT_THAT(text, HasSubstr("| g | IOPS | p50 us |\n"));
  EXPECT_THAT(text, HasSubstr("| h | IOPS | p50 us | timer late, p99 us |\n"));
  EXPECT_THAT(text, HasSubstr("| 5.00 |\n"));
}

TEST(MarkdownReport, SaysWhatFailedWithoutBreakingItsTables) {
  ExperimentResult result = made_result();
  result.cells[2].rounds = {failed_round(0, "no | such\nfile")};
  const std::string text = markdown_report(result);
  EXPECT_THAT(text, HasSubstr("| fast | no \\| such file |\n"));
  EXPECT_THAT(text, HasSubstr("- fast, warm-up: no \\| such file\n"));
}

}  // namespace
}  // namespace skiff::vmm
