// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/range_lock.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "loop/event_loop.h"
#include "loop/testing/manual_loop.h"

namespace skiff::block {
namespace {

class RangeLockTest : public ::testing::Test {
 protected:
  struct Waiter : RangeLocks::Range {
    Waiter(loop::EventLoop& loop, uint64_t begin, uint64_t end) {
      begin_bytes = begin;
      end_bytes = end;
      home = &loop;
      granted = [](RangeLocks::Range& range) { static_cast<Waiter&>(range).is_granted = true; };
    }
    bool is_granted = false;
  };

  loop::ManualLoop loop_;
  RangeLocks locks_;
};

TEST_F(RangeLockTest, RangesApartDoNotWait) {
  Waiter a(loop_, 0, 4096);
  Waiter b(loop_, 4096, 8192);
  EXPECT_TRUE(locks_.acquire(a));
  EXPECT_TRUE(locks_.acquire(b));
  locks_.release(a);
  locks_.release(b);
}

TEST_F(RangeLockTest, OverlapWaitsAndIsGrantedInALaterTurn) {
  Waiter a(loop_, 0, 8192);
  Waiter b(loop_, 4096, 12288);
  EXPECT_TRUE(locks_.acquire(a));
  EXPECT_FALSE(locks_.acquire(b));
  locks_.release(a);
  EXPECT_FALSE(b.is_granted);
  loop_.run_until_idle();
  EXPECT_TRUE(b.is_granted);
  locks_.release(b);
}

TEST_F(RangeLockTest, NobodyOvertakesAWaiterHeOverlaps) {
  Waiter holder(loop_, 0, 4096);
  Waiter wide(loop_, 0, 12288);
  Waiter late(loop_, 8192, 12288);
  EXPECT_TRUE(locks_.acquire(holder));
  EXPECT_FALSE(locks_.acquire(wide));
  EXPECT_FALSE(locks_.acquire(late));  // Free of the holder, behind the waiter.
  locks_.release(holder);
  loop_.run_until_idle();
  EXPECT_TRUE(wide.is_granted);
  EXPECT_FALSE(late.is_granted);
  locks_.release(wide);
  loop_.run_until_idle();
  EXPECT_TRUE(late.is_granted);
  locks_.release(late);
}

}  // namespace
}  // namespace skiff::block
