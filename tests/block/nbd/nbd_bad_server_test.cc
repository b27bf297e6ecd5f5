// SPDX-License-Identifier: GPL-2.0-or-later
// Servers that lie, hang up or say nothing: a defined result, a clear message, and no hang.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/nbd/nbd_image.h"
#include "loop/result.h"
#include "tests/block/nbd/nbd_fixture.h"
#include "tests/block/nbd/scripted_server.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using Fault = ScriptedServer::Fault;

class NbdBadServerTest : public NbdFixture {
 protected:
  std::string socket() const { return dir_.path("nbd.sock"); }
  std::string refusal_of(const ScriptedServer::Behaviour& behaviour) {
    const ScriptedServer server(socket(), behaviour);
    NbdImage::Options hasty = options(server.url());
    hasty.patience.connect_timeout_ms = 300;
    return refusal(hasty).message();
  }
};

TEST_F(NbdBadServerTest, HonestOneWorksOverTcpToo) {
  const ScriptedServer server("", {});
  open(server.url());
  EXPECT_EQ(image_->size_bytes(), ScriptedServer::kDiskBytes);
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 512, out), 0);
  std::vector<std::byte> in(4096);
  EXPECT_EQ(run(BlockOp::kRead, 512, in), 0);
  EXPECT_EQ(in, out);
}

TEST_F(NbdBadServerTest, SizeBeyondTwoToThe63IsNotBelieved) {
  EXPECT_THAT(refusal_of({.claimed_bytes = uint64_t{1} << 63}), HasSubstr("believable size"));
  EXPECT_THAT(refusal_of({.claimed_bytes = UINT64_MAX}), HasSubstr("believable size"));
}

TEST_F(NbdBadServerTest, DiskOfNothingIsNoDisk) {
  EXPECT_THAT(refusal_of({.claimed_bytes = 0}), HasSubstr("0 bytes"));
  EXPECT_THAT(refusal_of({.claimed_bytes = 511}), HasSubstr("511 bytes"));
}

TEST_F(NbdBadServerTest, SizeThatIsALieFailsTheRequestAndNothingElse) {
  const ScriptedServer server(socket(), {.claimed_bytes = (uint64_t{1} << 63) - 1});
  open(server.url());
  EXPECT_EQ(image_->size_bytes(), (uint64_t{1} << 63) - 512);
  std::vector<std::byte> bytes(512);
  EXPECT_EQ(run(BlockOp::kRead, image_->size_bytes() - 512, bytes), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, image_->size_bytes(), bytes), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, 0, bytes), 0);
}

TEST_F(NbdBadServerTest, SomethingElseListeningIsSaidToBeThat) {
  EXPECT_THAT(refusal_of({.fault = Fault::kWrongMagic}), HasSubstr("handshake"));
}

TEST_F(NbdBadServerTest, ServerThatSaysNothingIsGivenUp) {
  EXPECT_THAT(refusal_of({.fault = Fault::kSilentHandshake}), HasSubstr("does not answer"));
}

TEST_F(NbdBadServerTest, ServerThatHangsUpInTheHandshakeIsRefused) {
  EXPECT_THAT(refusal_of({.fault = Fault::kHangUpInHandshake}),
              AnyOf(HasSubstr("handshake"), HasSubstr("disconnected")));
}

TEST_F(NbdBadServerTest, ServerThatDiesOnTheFirstReadIsRefused) {
  EXPECT_THAT(refusal_of({.fault = Fault::kHangUpInReply}), HasSubstr("Opening NBD disk"));
}

TEST_F(NbdBadServerTest, ServerThatNeverAnswersCountsAsGoneWhenAskedTo) {
  ScriptedServer server(socket(), {});
  NbdImage::Options hasty = options(server.url());
  hasty.patience.reply_timeout_s = 1;
  hasty.patience.reconnect_delay_s = 0;
  open(hasty);
  server.behave({.fault = Fault::kSilentRequests});
  server.crash();
  std::vector<std::byte> bytes(512);
  EXPECT_EQ(run(BlockOp::kRead, 0, bytes), -EIO);
}

// Whatever way a server is broken in, requests end when the delay is over.
class NbdBrokenServerTest : public NbdBadServerTest, public ::testing::WithParamInterface<Fault> {};

TEST_P(NbdBrokenServerTest, RequestsFailAfterTheReconnectDelayAndWorkOnceItIsWell) {
  ScriptedServer server(socket(), {});
  NbdImage::Options hasty = options(server.url());
  hasty.patience.reconnect_delay_s = 1;
  hasty.patience.connect_timeout_ms = 300;
  open(hasty);
  server.behave({.fault = GetParam()});
  server.crash();
  std::vector<std::byte> bytes(512);
  EXPECT_EQ(run(BlockOp::kRead, 0, bytes), -EIO);
  server.behave({});
  server.crash();
  while (run(BlockOp::kRead, 0, bytes) != 0) {
  }
  EXPECT_EQ(run(BlockOp::kWrite, 0, bytes), 0);
}
INSTANTIATE_TEST_SUITE_P(Faults, NbdBrokenServerTest,
                         ::testing::Values(Fault::kWrongMagic, Fault::kSilentHandshake,
                                           Fault::kHangUpInHandshake, Fault::kHangUpInReply,
                                           Fault::kGarbageReply, Fault::kShutdownErrors));

TEST_F(NbdBadServerTest, DiskThatShrankIsNotTakenBackUntilItHasItsSizeAgain) {
  ScriptedServer server(socket(), {});
  NbdImage::Options hasty = options(server.url());
  hasty.patience.reconnect_delay_s = 1;
  open(hasty);
  auto out = pattern(512);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  server.behave({.claimed_bytes = 4096});
  server.crash();
  std::vector<std::byte> in(512);
  EXPECT_EQ(run(BlockOp::kRead, 0, in), -EIO);
  EXPECT_EQ(image_->size_bytes(), ScriptedServer::kDiskBytes);
  server.behave({});
  while (run(BlockOp::kRead, 0, in) != 0) {
  }
  EXPECT_EQ(in, out);
}

TEST_F(NbdBadServerTest, DiskThatTurnedReadOnlyIsNotTakenBack) {
  ScriptedServer server(socket(), {});
  NbdImage::Options hasty = options(server.url());
  hasty.patience.reconnect_delay_s = 1;
  open(hasty);
  server.behave({.read_only = true});
  server.crash();
  std::vector<std::byte> bytes(512);
  EXPECT_EQ(run(BlockOp::kWrite, 0, bytes), -EIO);
}

TEST_F(NbdBadServerTest, ImageCanBeClosedWhileItsServerIsGone) {
  auto server = std::make_unique<ScriptedServer>(socket(), ScriptedServer::Behaviour{});
  NbdImage::Options hasty = options(server->url());
  hasty.patience.reconnect_delay_s = 0;
  open(hasty);
  server.reset();
  std::vector<std::byte> bytes(512);
  EXPECT_EQ(run(BlockOp::kRead, 0, bytes), -EIO);
  EXPECT_EQ(run(BlockOp::kRead, 0, bytes), -EIO);
}

TEST_F(NbdBadServerTest, FlushIsNeedlessWhereThereIsNone) {
  ScriptedServer server(socket(), {.flush = false, .fua = false});
  open(server.url());
  auto out = pattern(512);
  Probe write(BlockOp::kWrite, 0, out);
  write.request.fua = true;
  EXPECT_EQ(run(write), 0);
  EXPECT_EQ(flush(), 0);
  EXPECT_EQ(server.seen().flushes, 0u);
}

TEST_F(NbdBadServerTest, FuaIsAFlushAfterTheWriteWhereThereIsNoFua) {
  ScriptedServer server(socket(), {.fua = false, .multi_conn = true});
  open(server.url());
  wait_for_own_connection();
  auto out = pattern(512);
  Probe write(BlockOp::kWrite, 0, out);
  write.request.fua = true;
  EXPECT_EQ(run(write), 0);
  EXPECT_EQ(server.seen().flushes, 1u);
  const auto durable = server.durable();
  EXPECT_TRUE(std::equal(out.begin(), out.end(), durable.begin()));
}

TEST_F(NbdBadServerTest, FuaIsOneRequestWhereThereIsFua) {
  ScriptedServer server(socket(), {});
  open(server.url());
  auto out = pattern(512);
  Probe write(BlockOp::kWrite, 0, out);
  write.request.fua = true;
  EXPECT_EQ(run(write), 0);
  EXPECT_EQ(server.seen().fua, 1u);
  EXPECT_EQ(server.seen().flushes, 0u);
}

}  // namespace
}  // namespace skiff::block
