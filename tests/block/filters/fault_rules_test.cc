// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/fault_rules.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "block/block_channel.h"

namespace skiff::block {
namespace {

FaultRule only(const std::string& text) {
  const auto rules = FaultRules::parse(text);
  EXPECT_TRUE(rules) << (rules ? "" : rules.error().message());
  EXPECT_TRUE(rules && rules->rules.size() == 1);
  return rules && rules->rules.size() == 1 ? rules->rules[0] : FaultRule{};
}

TEST(FaultRulesTest, EveryFieldIsUnderstood) {
  const FaultRule rule = only("op=write,at=1M+64K,error=ENOSPC,p=0.25,nth=3,every=2,times=9");
  EXPECT_EQ(rule.ops, 1u << static_cast<unsigned>(BlockOp::kWrite));
  EXPECT_EQ(rule.offset_bytes, 1u << 20);
  EXPECT_EQ(rule.length_bytes, 64u << 10);
  EXPECT_EQ(rule.error, ENOSPC);
  EXPECT_EQ(rule.probability, 0.25);
  EXPECT_EQ(rule.nth, 3u);
  EXPECT_EQ(rule.every, 2u);
  EXPECT_EQ(rule.times, 9u);
  EXPECT_EQ(only("delay=5ms").delay_ns, 5'000'000);
  EXPECT_EQ(only("io=short").io, FaultRule::Io::kShort);
  EXPECT_EQ(only("error=5").error, 5);
}

TEST(FaultRulesTest, ColonsDoWhereTheCommandLineKeepsTheCommas) {
  const FaultRule rule = only("op=read:at=4K:error=EIO");
  EXPECT_EQ(rule.offset_bytes, 4096u);
  EXPECT_EQ(rule.length_bytes, FaultRule::kForEver);
}

TEST(FaultRulesTest, TheNthIsOneUnlessMoreIsSaid) {
  EXPECT_EQ(only("nth=3,error=EIO").times, 1u);
  EXPECT_EQ(only("nth=3,every=5,error=EIO").times, FaultRule::kForEver);
  EXPECT_EQ(only("error=EIO").times, FaultRule::kForEver);
}

TEST(FaultRulesTest, TornWriteFailsWithEioUnlessMoreIsSaid) {
  EXPECT_EQ(only("op=write,torn=3").error, EIO);
  EXPECT_EQ(only("op=write,torn=random").torn_sectors, FaultRule::kRandomSectors);
}

TEST(FaultRulesTest, SeveralRulesAndASeedStandSideBySide) {
  const auto rules = FaultRules::parse("seed=42; op=read,delay=1ms;;op=write,error=EIO;");
  ASSERT_TRUE(rules) << rules.error().message();
  EXPECT_EQ(rules->rules.size(), 2u);
  EXPECT_EQ(rules->seed, 42u);
  EXPECT_TRUE(FaultRules::parse("")->rules.empty());
}

TEST(FaultRulesTest, NonsenseIsRefusedAndTheMessageSaysWhatWouldDo) {
  for (const char* text : {"op=write",
                           "error=EWHAT",
                           "error=0",
                           "error=-5",
                           "p=2,error=EIO",
                           "p=nan,error=EIO",
                           "p=,error=EIO",
                           "at=1M+,error=EIO",
                           "at=+1,error=EIO",
                           "at=1+0,error=EIO",
                           "delay=5",
                           "delay=2h",
                           "delay=99999999999999999999ns",
                           "nth=0,error=EIO",
                           "every=0,error=EIO",
                           "op=fly,error=EIO",
                           "what=1",
                           "error",
                           "=",
                           "io=long",
                           "io=short,error=EIO",
                           "io=short,delay=1ms",
                           "seed=x",
                           "at=99999999999T,error=EIO"}) {
    const auto rules = FaultRules::parse(text);
    ASSERT_FALSE(rules) << text;
    EXPECT_NE(rules.error().message().find("fault: \""), std::string::npos);
  }
  EXPECT_NE(FaultRules::parse("error=EWHAT").error().message().find("ENOSPC"), std::string::npos);
  std::string many;
  for (int i = 0; i < 65; ++i) many += "error=EIO;";
  EXPECT_FALSE(FaultRules::parse(many));
}

}  // namespace
}  // namespace skiff::block
