// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/placement/mode_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  std::optional<SubmitMode> period(double requests_per_s) {
    facts_.requests_per_s = requests_per_s;
    now_ns_ += kPeriodNs;
    return chooser_.step(now_ns_, facts_);
  }
  // The first change within `periods`, at a rate.
  std::optional<SubmitMode> within(int periods, double requests_per_s) {
    for (int i = 0; i < periods; ++i)
      if (const auto change = period(requests_per_s)) return change;
    return std::nullopt;
  }
  // Waking costs far more than an exit: the model is for vcpu.
  ModeFacts facts_{kAll, 20'000, 5'000, 1.0, 2, 0, 0.1, 0, 1, 1};
  ModeChooser chooser_{SubmitMode::kIoThread};
  int64_t now_ns_ = 1;
};

TEST_F(ModeChooserTest, ClearAdvantageForThreePeriodsChangesTheMode) {
  EXPECT_FALSE(period(10'000));
  EXPECT_FALSE(period(10'000));
  EXPECT_EQ(period(10'000), SubmitMode::kVcpu);
  EXPECT_FALSE(within(15, 14'000));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kVcpu);
  EXPECT_THAT(chooser_.why(), HasSubstr("tried vcpu: 14000 requests/s, after 10000 by iothread"));
}

TEST_F(ModeChooserTest, ChangeThatCostsTheGuestRequestsIsTakenBackAndNotRepeatedSoon) {
  ASSERT_EQ(within(3, 10'000), SubmitMode::kVcpu);
  EXPECT_EQ(within(4, 8'000), SubmitMode::kIoThread);
  EXPECT_FALSE(within(90, 10'000));
  // Ten seconds later once more, then not for twenty.
  EXPECT_EQ(within(20, 10'000), SubmitMode::kVcpu);
  EXPECT_EQ(within(4, 8'000), SubmitMode::kIoThread);
  EXPECT_FALSE(within(190, 10'000));
}

TEST_F(ModeChooserTest, ModelThatIsWrongIsFoundOutByTrying) {
  facts_.exit_ns = 24'000;  // The model: 48 us by vcpu, 36 us by iothread.
  EXPECT_FALSE(within(19, 10'000));
  EXPECT_EQ(within(10, 10'000), SubmitMode::kVcpu);
  EXPECT_FALSE(within(4, 13'000));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kVcpu);
}

TEST_F(ModeChooserTest, UnsteadyRateIsNoTimeToTry) {
  facts_.exit_ns = 24'000;
  for (int i = 0; i < 60; ++i) EXPECT_FALSE(period(i % 2 == 0 ? 5'000 : 10'000));
}

TEST_F(ModeChooserTest, TooFewRequestsDecideNothing) {
  EXPECT_FALSE(within(100, ModeChooser::kRequestsPerSecondMin - 1));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kIoThread);
}

TEST_F(ModeChooserTest, TrialThatRanOutOfRequestsShowsNothing) {
  ASSERT_EQ(within(3, 10'000), SubmitMode::kVcpu);
  EXPECT_FALSE(within(10, 0));
  EXPECT_EQ(chooser_.mode(), SubmitMode::kVcpu);
}

TEST_F(ModeChooserTest, FluctuatingFactsDoNotMakeItFlutter) {
  int changes = 0;
  for (int i = 0; i < 300; ++i) {
    facts_.wake_ns = i % 2 == 0 ? 20'000 : 5'000;
    if (period(10'000)) ++changes;
  }
  EXPECT_LE(changes, 8);
}

}  // namespace
}  // namespace skiff::vmm
