// SPDX-License-Identifier: GPL-2.0-or-later
#include "loop/event_notifier.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "loop/result.h"

namespace skiff::loop {
namespace {

TEST(EventNotifierTest, ConsumeSaysWhetherAnybodyNotifiedAndNeverBlocks) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  EXPECT_FALSE(notifier->consume());
  notifier->notify();
  notifier->notify();
  EXPECT_TRUE(notifier->consume());
  EXPECT_FALSE(notifier->consume());
}

TEST(EventNotifierTest, DescriptorBlocksForTheRingAndClosesOnExec) {
  Result<EventNotifier> notifier = EventNotifier::create();
  ASSERT_TRUE(notifier);
  EXPECT_EQ(fcntl(notifier->fd(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(fcntl(notifier->fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

}  // namespace
}  // namespace skiff::loop
