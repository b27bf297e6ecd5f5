// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/log.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace skiff::loop {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

TEST(LogTest, WarningsAreShownAndInformationIsNotUntilAskedFor) {
  ::testing::internal::CaptureStderr();
  SKIFF_LOG(kInfo, "Hidden");
  SKIFF_LOG(kWarn, "Disk {} has {} in its name", "a.img", "{}");
  set_log_level(LogLevel::kInfo);
  SKIFF_LOG(kInfo, "Shown");
  set_log_level(LogLevel::kWarn);
  const std::string shown = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(shown, "skiff: warning: Disk a.img has {} in its name\nskiff: info: Shown\n");
}

TEST(LogTest, LevelOffShowsNothing) {
  set_log_level(LogLevel::kOff);
  EXPECT_FALSE(log_enabled(LogLevel::kError));
  set_log_level(LogLevel::kWarn);
  EXPECT_TRUE(log_enabled(LogLevel::kError));
}

TEST(LogLimiterTest, TenASecondAndTheNextSaysHowManyWereLeftOut) {
  LogLimiter limiter;
  int allowed = 0;
  for (int i = 0; i < 25; ++i)
    if (limiter.check(kSecondNs + i).allowed) ++allowed;
  EXPECT_EQ(allowed, 10);
  EXPECT_FALSE(limiter.check(2 * kSecondNs - 1).allowed);
  const LogLimiter::Verdict next = limiter.check(2 * kSecondNs + 1);
  EXPECT_TRUE(next.allowed);
  EXPECT_EQ(next.suppressed_before, 16U);
  EXPECT_EQ(limiter.check(2 * kSecondNs + 2).suppressed_before, 0U);
  EXPECT_EQ(suppressed_note(0), "");
  EXPECT_EQ(suppressed_note(16), " (16 more like this were left out)");
}

}  // namespace
}  // namespace skiff::loop
