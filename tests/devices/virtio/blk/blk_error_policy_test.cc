// SPDX-License-Identifier: GPL-2.0-or-later
// rerror and werror: what a guest gets to see of a host that cannot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <cerrno>
#include <cstddef>
#include <vector>

#include "block/block_channel.h"
#include "block/error_policy.h"
#include "block/testing/fake_channel.h"
#include "tests/devices/virtio/blk/blk_fixture.h"

namespace skiff::devices {
namespace {

using block::ErrorAction;
using block::ErrorPolicy;
using ::testing::ElementsAre;

TEST(ErrorPolicyTest, WhatTheRequestIsToBlameForIsAlwaysReported) {
  for (const ErrorPolicy policy :
       {ErrorPolicy::kReport, ErrorPolicy::kIgnore, ErrorPolicy::kEnospc, ErrorPolicy::kStop}) {
    EXPECT_EQ(block::action_for(policy, -EINVAL), ErrorAction::kReport);
    EXPECT_EQ(block::action_for(policy, -EOPNOTSUPP), ErrorAction::kReport);
  }
}

TEST(ErrorPolicyTest, EnospcStopsWithoutRoomAndReportsTheRest) {
  EXPECT_EQ(block::action_for(ErrorPolicy::kEnospc, -ENOSPC), ErrorAction::kStop);
  EXPECT_EQ(block::action_for(ErrorPolicy::kEnospc, -EDQUOT), ErrorAction::kStop);
  EXPECT_EQ(block::action_for(ErrorPolicy::kEnospc, -EIO), ErrorAction::kReport);
}

TEST(ErrorPolicyTest, NamesAreTheOptionsValues) {
  EXPECT_EQ(block::parse_error_policy("report"), ErrorPolicy::kReport);
  EXPECT_EQ(block::parse_error_policy("ignore"), ErrorPolicy::kIgnore);
  EXPECT_EQ(block::parse_error_policy("enospc"), ErrorPolicy::kEnospc);
  EXPECT_EQ(block::parse_error_policy("stop"), ErrorPolicy::kStop);
  EXPECT_FALSE(block::parse_error_policy("panic"));
}

class BlkErrorPolicyTest : public BlkFixture {
 protected:
  void make_with(const block::ErrorPolicies& errors) {
    errors_ = errors;
    make_and_start({.sectors = 64});
  }
  block::FakeChannel& channel() { return image_->channel(); }
  void fail(size_t index, int error) {
    channel().fail(index, -error);
    loop_.run_until_idle();
  }
  const std::vector<std::byte> sector_ = std::vector<std::byte>(512, std::byte{0x5a});
};

TEST_F(BlkErrorPolicyTest, StoppedRequestWaitsForTheRetryAndThenSucceeds) {
  make_with({.read = ErrorPolicy::kReport, .write = ErrorPolicy::kStop});
  const Offered write = offer_write(3, sector_);
  const Offered flush = offer_plain(VIRTIO_BLK_T_FLUSH);
  kick();
  fail(0, ENOSPC);
  fail(0, EIO);
  EXPECT_EQ(status(write), kNoStatus);
  EXPECT_EQ(status(flush), kNoStatus);
  ASSERT_EQ(stops_.size(), 1u);  // Of the first; the other shares it.
  EXPECT_EQ(stops_[0].op, block::BlockOp::kWrite);
  EXPECT_EQ(stops_[0].offset_bytes, 3u * 512);
  EXPECT_EQ(stops_[0].length_bytes, 512u);
  EXPECT_EQ(stops_[0].os_error, ENOSPC);

  device_->retry_failed();
  loop_.run_until_idle();
  ASSERT_EQ(channel().pending().size(), 2u);
  EXPECT_EQ(channel().pending()[0]->op, block::BlockOp::kWrite);  // In the order of their failure.
  channel().complete(0);
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(status(write), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(flush), VIRTIO_BLK_S_OK);
  EXPECT_EQ(image_->bytes()[3 * 512], std::byte{0x5a});
  EXPECT_EQ(device_->queue_stats(0).parked, 2u);
  EXPECT_EQ(device_->queue_stats(0).errors, 0u);
}

TEST_F(BlkErrorPolicyTest, FailureAfterTheRetryStopsAgain) {
  make_with({.write = ErrorPolicy::kStop});
  offer_write(0, sector_);
  kick();
  for (size_t round = 1; round <= 3; ++round) {
    fail(0, EIO);
    EXPECT_EQ(stops_.size(), round);
    device_->retry_failed();
    loop_.run_until_idle();
  }
  channel().complete(0);
}

TEST_F(BlkErrorPolicyTest, ResetOfTheDeviceFailsWhatIsParked) {
  make_with({.read = ErrorPolicy::kStop, .write = ErrorPolicy::kStop});
  const Offered parked = offer_read(0, 512);
  const Offered in_flight = offer_write(1, sector_);
  kick();
  fail(0, EIO);
  bool stopped = false;
  device_->stop([&] { stopped = true; });
  loop_.run_until_idle();
  EXPECT_EQ(status(parked), VIRTIO_BLK_S_IOERR);
  EXPECT_FALSE(stopped);
  fail(0, EIO);  // Nobody would resume it now.
  EXPECT_EQ(status(in_flight), VIRTIO_BLK_S_IOERR);
  EXPECT_TRUE(stopped);
  device_->retry_failed();  // Too late, and harmless.
  loop_.run_until_idle();
}

TEST_F(BlkErrorPolicyTest, IgnoredErrorIsASuccessForTheGuest) {
  make_with({.read = ErrorPolicy::kReport, .write = ErrorPolicy::kIgnore});
  const Offered read = offer_read(0, 512);
  const Offered write = offer_write(0, sector_);
  kick();
  fail(1, EIO);
  fail(0, EIO);
  EXPECT_EQ(status(write), VIRTIO_BLK_S_OK);
  EXPECT_EQ(status(read), VIRTIO_BLK_S_IOERR);  // Its own policy.
  EXPECT_EQ(device_->queue_stats(0).ignored_errors, 1u);
  EXPECT_TRUE(stops_.empty());
}

TEST_F(BlkErrorPolicyTest, GuestsOwnMistakesNeverStopTheMachine) {
  make_with({.read = ErrorPolicy::kStop, .write = ErrorPolicy::kStop});
  const Offered outside = offer_read(64, 512);
  const Offered refused = offer_write(0, sector_);
  kick();
  fail(0, EOPNOTSUPP);
  EXPECT_EQ(status(outside), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(status(refused), VIRTIO_BLK_S_UNSUPP);
  EXPECT_TRUE(stops_.empty());
}

TEST_F(BlkErrorPolicyTest, OtherRequestsGoOnWhileOneIsParked) {
  make_with({.write = ErrorPolicy::kEnospc});
  offer_write(0, sector_);
  kick();
  fail(0, ENOSPC);
  const Offered read = offer_read(0, 512);
  kick();
  channel().complete(0);
  loop_.run_until_idle();
  EXPECT_EQ(status(read), VIRTIO_BLK_S_OK);
  EXPECT_THAT(driver_->used_heads(), ElementsAre(read.head));
}

}  // namespace
}  // namespace skiff::devices
