// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/mode_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "devices/virtio/blk/queue_home.h"

namespace skiff::vmm {
namespace {

using devices::SubmitMode;
using ::testing::HasSubstr;

struct ModeCase {
  const char* name;
  ModeFacts facts;
  SubmitMode best;
};

constexpr std::array<bool, kSubmitModes> kAll = {true, true, true};

class JudgeModes : public ::testing::TestWithParam<ModeCase> {};

TEST_P(JudgeModes, PicksTheCheapest) {
  const ModeVerdict verdict = judge_modes(GetParam().facts);
  EXPECT_EQ(verdict.best, GetParam().best) << explain(verdict, GetParam().facts);
}

INSTANTIATE_TEST_SUITE_P(
    Table, JudgeModes,
    ::testing::Values(
        ModeCase{"SlowWakesAndOneRequestAtATime",
                 {kAll, 20'000, 6'000, 1.0, 2, 0, 0.1, 10'000, 1, 1},
                 SubmitMode::kVcpu},
        ModeCase{"ExitsDearerThanWakes",
                 {kAll, 5'000, 25'000, 2.0, 4, 0, 0.1, 10'000, 1, 1},
                 SubmitMode::kIoThread},
        ModeCase{"LargeBatchesOnABusyThread",
                 {kAll, 20'000, 6'000, 4.0, 8, 0, 0.9, 200'000, 16, 32},
                 SubmitMode::kIoThread},
        ModeCase{"NoCoreToSpare",
                 {kAll, 20'000, 3'000, 0.0, 2, 50'000, 0.5, 50'000, 4, 8},
                 SubmitMode::kVcpu},
        ModeCase{"ManyIdleCoresAndRequestsInQuickSuccession",
                 {kAll, 20'000, 6'000, 12.0, 16, 50'000, 0.3, 80'000, 1, 2},
                 SubmitMode::kPoll},
        ModeCase{"OneCoreBesideTheGuests",
                 {kAll, 15'000, 6'000, 0.5, 2, 50'000, 0.45, 50'000, 1, 1},
                 SubmitMode::kPoll},
        ModeCase{"CoreThatOnlyThePollingThreadTakes",
                 {kAll, 15'000, 6'000, 0.0, 2, 50'000, 1.0, 50'000, 1, 1, SubmitMode::kPoll},
                 SubmitMode::kPoll},
        ModeCase{"CoreThatOthersWant",
                 {kAll, 15'000, 6'000, 0.2, 2, 50'000, 0.3, 50'000, 1, 1},
                 SubmitMode::kVcpu},
        ModeCase{"RequestsTooRareForPolling",
                 {kAll, 20'000, 6'000, 12.0, 16, 50'000, 0.0, 500, 1, 1},
                 SubmitMode::kVcpu},
        ModeCase{"VcpusThatCannotSubmit",
                 {{true, false, true}, 20'000, 1'000, 0.0, 2, 50'000, 0.1, 10'000, 1, 1},
                 SubmitMode::kIoThread},
        ModeCase{"NoIothread",
                 {{false, true, false}, 1'000, 50'000, 4.0, 8, 50'000, 0.1, 10'000, 1, 1},
                 SubmitMode::kVcpu}),
    [](const auto& param) { return std::string(param.param.name); });

class ModeChooserTest : public ::testing::Test {
 protected:
  static constexpr int64_t kPeriodNs = 100'000'000;
  static constexpr int64_t kSurveyPeriodNs = 20'000'000;
  std::optional<SubmitMode> period(double requests_per_s) {
    const int64_t length_ns = chooser_.is_surveying() ? kSurveyPeriodNs : kPeriodNs;
    facts_.mode = chooser_.mode();
    facts_.seconds = static_cast<double>(length_ns) / 1e9;
    facts_.requests_per_s = requests_per_s;
    now_ns_ += length_ns;
    return chooser_.step(now_ns_, facts_);
  }
  // The first change within `periods`, at a rate.
  std::optional<SubmitMode> within(int periods, double requests_per_s) {
    for (int i = 0; i < periods; ++i)
      if (const auto change = period(requests_per_s)) return change;
    return std::nullopt;
  }
  // How many periods it takes to compare the modes, with these rates by mode.
  int survey(const std::array<double, kSubmitModes>& rates) {
    int periods = 0;
    for (; periods < 100 && chooser_.is_surveying(); ++periods)
      period(rates[static_cast<size_t>(chooser_.mode())]);
    return periods;
  }
  // Past the survey, in iothread mode, with nothing else tried.
  void settle() {
    facts_.possible = {true, false, false};
    survey({10'000, 0, 0});
    facts_.possible = kAll;
    ASSERT_FALSE(chooser_.is_surveying());
  }
  // Waking costs far more than an exit: the model is for vcpu.
  ModeFacts facts_{kAll, 20'000, 5'000, 1.0, 2, 0, 0.1, 0, 1, 1};
  ModeChooser chooser_{SubmitMode::kIoThread};
  int64_t now_ns_ = 1;
};

TEST_F(ModeChooserTest, FirstSteadyLoadShowsTheBestModeWhateverTheModelSays) {
  facts_.poll_max_ns = 50'000;
  survey({10'000, 8'000, 30'000});
  EXPECT_EQ(chooser_.mode(), SubmitMode::kPoll);
  EXPECT_THAT(chooser_.why(), HasSubstr("tried iothread: 10000 requests/s; vcpu: 8000 requests/s; "
                                        "poll: 30000 requests/s;"));
  EXPECT_FALSE(within(90, 30'000)) << "what was slower is left alone for ten seconds";
}

TEST_F(ModeChooserTest, SurveyTakesLessThanAQuarterOfASecond) {
  facts_.poll_max_ns = 50'000;
  EXPECT_LE(survey({10'000, 8'000, 30'000}) * kSurveyPeriodNs, 250'000'000);
}

TEST_F(ModeChooserTest, ModeThatIsTheBestAlreadyIsComeBackTo) {
  survey({10'000, 8'000, 0});
  EXPECT_EQ(chooser_.mode(), SubmitMode::kIoThread);
  EXPECT_EQ(chooser_.changes(), 2u);
}

TEST_F(ModeChooserTest, WhereRatesAreTheSameTheCheapestModeIsChosen) {
  survey({10'000, 10'100, 0});
  EXPECT_EQ(chooser_.mode(), SubmitMode::kVcpu);
}

TEST_F(ModeChooserTest, RateThatDoesNotLastIsNotCompared) {
  int changes = 0;
  int periods = 0;
  for (; chooser_.is_surveying() && periods < 100; ++periods)
    if (period((periods + 3) % 4 < 2 ? 5'000 : 10'000)) ++changes;
  EXPECT_EQ(changes, 0);
  EXPECT_GE(periods, 50);
  EXPECT_LT(periods, 60);
  EXPECT_EQ(chooser_.mode(), SubmitMode::kIoThread);
}

TEST_F(ModeChooserTest, PollingEndsWhenOthersWantTheCoreAndStaysOffForAWhile) {
  facts_.poll_max_ns = 50'000;
  survey({10'000, 8'000, 30'000});
  ASSERT_EQ(chooser_.mode(), SubmitMode::kPoll);
  facts_.idle_cores = 0;
  facts_.thread_load = 0.5;
  const auto other = within(3, 20'000);
  ASSERT_TRUE(other);
  EXPECT_NE(*other, SubmitMode::kPoll);
  facts_.idle_cores = 1;
  for (int i = 0; i < 90; ++i) EXPECT_NE(period(10'000), SubmitMode::kPoll);
}

TEST_F(ModeChooserTest, ClearAdvantageForThreePeriodsChangesTheMode) {
  settle();
  EXPECT_FALSE(period(10'000));
  EXPECT_FALSE(period(10'000));
  EXPECT_EQ(period(10'000), SubmitMode::kVcpu);
  EXPECT_FALSE(within(15, 14'000));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kVcpu);
  EXPECT_THAT(chooser_.why(), HasSubstr("tried vcpu: 14000 requests/s, after 10000 by iothread"));
}

TEST_F(ModeChooserTest, ChangeThatCostsTheGuestRequestsIsTakenBackAndNotRepeatedSoon) {
  settle();
  ASSERT_EQ(within(3, 10'000), SubmitMode::kVcpu);
  EXPECT_EQ(within(4, 8'000), SubmitMode::kIoThread);
  EXPECT_FALSE(within(90, 10'000));
  // Ten seconds later once more, then not for twenty.
  EXPECT_EQ(within(20, 10'000), SubmitMode::kVcpu);
  EXPECT_EQ(within(4, 8'000), SubmitMode::kIoThread);
  EXPECT_FALSE(within(190, 10'000));
}

TEST_F(ModeChooserTest, ModelThatIsWrongIsFoundOutByTrying) {
  settle();
  facts_.exit_ns = 24'000;  // The model: 48 us by vcpu, 36 us by iothread.
  EXPECT_FALSE(within(19, 10'000));
  EXPECT_EQ(within(10, 10'000), SubmitMode::kVcpu);
  EXPECT_FALSE(within(4, 13'000));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kVcpu);
}

TEST_F(ModeChooserTest, UnsteadyRateIsNoTimeToTry) {
  settle();
  facts_.exit_ns = 24'000;
  for (int i = 0; i < 60; ++i) EXPECT_FALSE(period(i % 2 == 0 ? 5'000 : 10'000));
}

TEST_F(ModeChooserTest, TooFewRequestsDecideNothing) {
  EXPECT_FALSE(within(100, ModeChooser::kRequestsPerSecondMin - 1));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kIoThread);
}

TEST_F(ModeChooserTest, TrialThatRanOutOfRequestsShowsNothing) {
  settle();
  ASSERT_EQ(within(3, 10'000), SubmitMode::kVcpu);
  EXPECT_FALSE(within(10, 0));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kVcpu);
}

TEST_F(ModeChooserTest, FluctuatingFactsDoNotMakeItFlutter) {
  settle();
  int changes = 0;
  for (int i = 0; i < 300; ++i) {
    facts_.wake_ns = i % 2 == 0 ? 20'000 : 5'000;
    if (period(10'000)) ++changes;
  }
  EXPECT_LE(changes, 8);
}

}  // namespace
}  // namespace skiff::vmm
