// SPDX-License-Identifier: GPL-2.0-or-later
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tests/vmm/experiment/experiment_fixtures.h"
#include "vmm/experiment/experiment_result.h"
#include "vmm/experiment/html_report.h"

namespace skiff::vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What is wrong with a page as XML (elements that are not closed in order, stray brackets, unknown
// entities); empty when nothing is. `text` gets what stands between the elements.
std::string find_fault(std::string_view page, std::string& text) {
  std::vector<std::string> open;
  for (size_t at = 0; at < page.size();) {
    if (page[at] != '<') {
      if (page[at] == '>') return "a stray '>' at " + std::to_string(at);
      if (page[at] == '&') {
        const std::string_view entity = page.substr(at, page.find(';', at) - at + 1);
        const bool known = entity == "&amp;" || entity == "&lt;" || entity == "&gt;" ||
                           entity == "&quot;" || entity.starts_with("&#");
        if (!known) return "entity " + std::string(entity);
      }
      text += page[at++];
      continue;
    }
    const size_t end = page.find('>', at);
    if (end == std::string_view::npos) return "an element without its end";
    const std::string_view element = page.substr(at + 1, end - at - 1);
    at = end + 1;
    if (element.find('<') != std::string_view::npos) return "a stray '<'";
    if (element.starts_with("!DOCTYPE") || element.ends_with("/")) continue;
    if (element.starts_with("/")) {
      if (open.empty() || open.back() != element.substr(1))
        return "</" + std::string(element.substr(1)) + "> within " +
               (open.empty() ? "nothing" : open.back());
      open.pop_back();
      continue;
    }
    const size_t quotes = static_cast<size_t>(std::count(element.begin(), element.end(), '"'));
    if (quotes % 2 != 0) return "quotes in " + std::string(element);
    open.emplace_back(element.substr(0, element.find(' ')));
    // Not text of a page's own making.
    if (open.back() == "style") at = page.find("</style>", at);
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

std::string text_of(const std::string& page) {
  std::string text;
  EXPECT_EQ(find_fault(page, text), "");
  return text;
}

TEST(HtmlReport, IsWellFormedAndNeedsNothingElse) {
  const std::string page = html_report(made_result());
  const std::string text = text_of(page);
  EXPECT_THAT(text, HasSubstr("made"));
  EXPECT_THAT(text, HasSubstr("Is &lt;fast&gt; faster &amp; why?"));
  EXPECT_THAT(text, HasSubstr("Made-up &quot;CPU&quot;"));
  EXPECT_THAT(text, HasSubstr("seed 42"));
  EXPECT_THAT(page, HasSubstr("<svg"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
  for (const char* outside : {"src=", "href=", "url(", "@import", "<script", "<link"})
    EXPECT_THAT(page, Not(HasSubstr(outside)));
}

TEST(HtmlReport, WhatIsBeyondTheSpreadIsMarkedAndWhatIsNotIsNot) {
  const std::string page = html_report(made_result());
  EXPECT_THAT(page, HasSubstr("<span class=\"good\">&#215;2.00</span>"));
  EXPECT_THAT(page, HasSubstr("<span class=\"dim\">&#215;1."));  // The twin.
  EXPECT_THAT(page, Not(HasSubstr("<span class=\"bad\">&#215;2")));
}

TEST(HtmlReport, LessLatencyIsBetter) {
  EXPECT_THAT(html_report(made_result()), HasSubstr("<span class=\"good\">&#215;0.50</span>"));
}

TEST(HtmlReport, AFailingCellIsReportedInItsPlace) {
  ExperimentResult result = made_result();
  CellResult broken = made_cell("broken", {});
  broken.rounds.push_back(failed_round(1, "Exit status 1: \xff <oops>"));
  result.cells.push_back(broken);
  const std::string text = text_of(html_report(result));
  EXPECT_THAT(text, HasSubstr("broken"));
  EXPECT_THAT(text, HasSubstr("Exit status 1: \xef\xbf\xbd &lt;oops&gt;"));
  EXPECT_THAT(text, HasSubstr("What failed"));
  EXPECT_THAT(text_of(html_report(made_result())), Not(HasSubstr("What failed")));
}

TEST(HtmlReport, AnInterruptIsSaid) {
  ExperimentResult result = made_result();
  EXPECT_THAT(html_report(result), Not(HasSubstr("interrupted")));
  result.interrupted = true;
  EXPECT_THAT(text_of(html_report(result)), HasSubstr("interrupted"));
}

TEST(HtmlReport, SeveralGroupsAreShownAtAGlance) {
  ExperimentResult result = made_result();
  EXPECT_THAT(html_report(result), Not(HasSubstr("At a glance")));
  result.cells.push_back(made_cell("slow", {1, 1, 1}));
  result.cells.back().cell.group = "another";
  const std::string text = text_of(html_report(result));
  EXPECT_THAT(text, HasSubstr("At a glance"));
  EXPECT_THAT(text, HasSubstr("another"));
}

TEST(HtmlReport, NothingMeasuredIsStillAPage) {
  ExperimentResult result;
  result.name = "empty";
  EXPECT_THAT(text_of(html_report(result)), HasSubstr("empty"));
}

}  // namespace
}  // namespace skiff::vmm
