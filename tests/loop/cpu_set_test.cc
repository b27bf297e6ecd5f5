// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/cpu_set.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "loop/result.h"

namespace skiff::loop {
namespace {

TEST(CpuSetTest, ListsAndRangesAreRead) {
  Result<CpuSet> set = CpuSet::parse("0-3,8,70-71");
  ASSERT_TRUE(set);
  EXPECT_EQ(set->count(), 7U);
  for (const uint32_t cpu : {0U, 3U, 8U, 70U, 71U}) EXPECT_TRUE(set->contains(cpu)) << cpu;
  for (const uint32_t cpu : {4U, 7U, 9U, 72U, 9000U}) EXPECT_FALSE(set->contains(cpu)) << cpu;
  EXPECT_EQ(set->to_string(), "0-3,8,70-71");
  EXPECT_EQ(CpuSet::parse("3,1,2,0,8,71,70")->to_string(), "0-3,8,70-71");
}

TEST(CpuSetTest, NonsenseIsRefusedWithAnExample) {
  for (const char* text : {"", ",", "1,", "3-1", "-1", "1-", "a", "0x1", "1 ", "8192", "0-8192",
                           "99999999999", "1-2-3", "0--3"}) {
    Result<CpuSet> set = CpuSet::parse(text);
    ASSERT_FALSE(set) << text;
    EXPECT_EQ(set.error().kind(), ErrorKind::kInvalidArgument);
    EXPECT_NE(set.error().message().find("0-3,8"), std::string::npos);
  }
}

TEST(CpuSetTest, ThisThreadMayUseWhatTheProcessMay) {
  Result<CpuSet> process = CpuSet::of_process();
  ASSERT_TRUE(process);
  EXPECT_FALSE(process->empty());
  EXPECT_EQ(*process, *CpuSet::of_current_thread());
}

}  // namespace
}  // namespace skiff::loop
