// SPDX-License-Identifier: GPL-2.0-or-later
// Servers that die and come back, with requests under way and without.
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
#include "loop/io_thread.h"
#include "tests/block/nbd/nbd_fixture.h"
#include "tests/block/nbd/nbd_load.h"
#include "tests/block/nbd/scripted_server.h"
#include "tests/block/nbd/server_process.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using Fault = ScriptedServer::Fault;

class NbdReconnectTest : public NbdFixture {
 protected:
  std::string socket() const { return dir_.path("nbd.sock"); }
};

TEST_F(NbdReconnectTest, RequestsWaitForTheServerAndGoOn) {
  ScriptedServer server(socket(), {});
  open(server.url());
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  EXPECT_EQ(flush(), 0);
  server.stop();
  std::vector<std::byte> in(4096);
  Probe read(BlockOp::kRead, 0, in);
  Probe write(BlockOp::kWrite, 8192, out);
  submit(read);
  submit(write);
  EXPECT_EQ(channel_->in_flight(), 2u);
  server.start();
  finish();
  EXPECT_EQ(read.result, 0);
  EXPECT_EQ(write.result, 0);
  EXPECT_EQ(in, out);
}

TEST_F(NbdReconnectTest, ChannelsGiveUpTheirConnectionsWhenTheHomeHasLostItsOwn) {
  ScriptedServer server(socket(), {.multi_conn = true});
  open(server.url());
  wait_for_own_connection();
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  // It may be another server that answers there now; this one would tell of the old one's disk.
  server.drop_one(ScriptedServer::Age::kOldest);
  EXPECT_EQ(flush(), 0);
  wait_for_own_connection();
  EXPECT_EQ(server.seen().connections, 4u);
  EXPECT_EQ(server.seen().writes, 2u) << "the write was not repeated";
}

TEST_F(NbdReconnectTest, ChannelThatLosesItsOwnConnectionIsServedAndGetsAnother) {
  ScriptedServer server(socket(), {.multi_conn = true});
  open(server.url());
  wait_for_own_connection();
  auto out = pattern(4096);
  server.drop_one(ScriptedServer::Age::kNewest);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  while (has_own_connection()) turn();
  EXPECT_EQ(flush(), 0);
  EXPECT_EQ(server.seen().writes, 1u) << "the home's connection lived: nothing was lost";
  wait_for_own_connection();
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
}

// The promise that a flush makes, kept over the death of the server that it was made for.
class NbdForgetfulServerTest : public NbdReconnectTest, public ::testing::WithParamInterface<bool> {
 protected:
  void open_server(ScriptedServer& server) {
    open(server.url());
    if (GetParam()) wait_for_own_connection();
  }
};

TEST_P(NbdForgetfulServerTest, AcknowledgedWritesThatItForgotAreWrittenAgainBeforeTheFlush) {
  ScriptedServer server(socket(), {.multi_conn = GetParam()});
  open_server(server);
  auto first = pattern(4096, 1);
  auto second = pattern(4096, 2);
  EXPECT_EQ(run(BlockOp::kWrite, 0, first), 0);
  EXPECT_EQ(run(BlockOp::kWrite, 0, second), 0);
  EXPECT_EQ(run(BlockOp::kWrite, 65536, first), 0);
  EXPECT_EQ(run_range(BlockOp::kDiscard, 65536, 512), 0);
  Probe zero(BlockOp::kWriteZeroes, 65536 + 1024, 512);
  EXPECT_EQ(run(zero), 0);
  server.crash();
  EXPECT_EQ(flush(), 0);
  const auto durable = server.durable();
  EXPECT_TRUE(std::equal(second.begin(), second.end(), durable.begin()));
  std::fill_n(first.begin(), 512, std::byte{0});
  std::fill_n(first.begin() + 1024, 512, std::byte{0});
  EXPECT_TRUE(std::equal(first.begin(), first.end(), durable.begin() + 65536));
}

TEST_P(NbdForgetfulServerTest, NothingIsReadBeforeItIsThereAgain) {
  ScriptedServer server(socket(), {.multi_conn = GetParam()});
  open_server(server);
  auto out = pattern(4096);
  std::vector<std::byte> in(4096);
  for (int round = 0; round < 10; ++round) {
    out = pattern(4096, static_cast<uint32_t>(round));
    EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
    server.crash();
    EXPECT_EQ(run(BlockOp::kRead, 0, in), 0);
    EXPECT_EQ(in, out) << "round " << round;
  }
}

TEST_P(NbdForgetfulServerTest, WhatWasFlushedIsNotWrittenAgain) {
  ScriptedServer server(socket(), {.multi_conn = GetParam()});
  open_server(server);
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  EXPECT_EQ(flush(), 0);
  server.crash();
  EXPECT_EQ(flush(), 0);
  EXPECT_EQ(server.seen().writes, 1u);
}

TEST_P(NbdForgetfulServerTest, WritesThatItCannotTakeBackFailEveryFlush) {
  ScriptedServer server(socket(), {.multi_conn = GetParam()});
  open_server(server);
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  server.behave({.fault = Fault::kWriteErrors, .multi_conn = GetParam()});
  server.crash();
  EXPECT_EQ(flush(), -EIO);
  EXPECT_EQ(flush(), -EIO);
  server.behave({.multi_conn = GetParam()});
  server.crash();
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  EXPECT_EQ(flush(), -EIO) << "the loss is forgotten";
}

TEST_P(NbdForgetfulServerTest, ManyDeathsUnderLoadLoseNothing) {
  ScriptedServer server(socket(), {.multi_conn = GetParam()});
  open(server.url());
  channel_.reset();  // Nobody turns its loop here.
  auto first = *loop::IoThread::create({.name = "a"});
  auto second = *loop::IoThread::create({.name = "b"});
  NbdLoad low(*image_, first->loop(), {.first_block = 0, .writes = 1500});
  NbdLoad high(*image_, second->loop(), {.first_block = 64, .writes = 1500});
  low.start();
  high.start();
  for (uint32_t writes = 100; writes <= 1400; writes += 100) {
    low.wait_for_writes(writes);
    server.crash();
  }
  low.wait();
  high.wait();
  EXPECT_EQ(low.write_errors() + high.write_errors(), 0u);
  EXPECT_EQ(low.flush_errors() + high.flush_errors(), 0u);
  const auto durable = server.durable();
  EXPECT_EQ(low.wrong_blocks(durable), 0u);
  EXPECT_EQ(high.wrong_blocks(durable), 0u);
}
INSTANTIATE_TEST_SUITE_P(Connections, NbdForgetfulServerTest, ::testing::Bool(),
                         [](const auto& parameter) {
                           return std::string(parameter.param ? "OnePerQueue" : "Shared");
                         });

// Real servers, killed and started again on the same file.
struct RealServer {
  const char* name;
  std::vector<std::string> (*command)(const std::string& socket, const std::string& file);
};

class NbdRealServerTest : public NbdReconnectTest,
                          public ::testing::WithParamInterface<RealServer> {};

TEST_P(NbdRealServerTest, KilledAndRestartedUnderLoadLosesNothing) {
  const auto file = dir_.make_sparse("disk.img", 1 << 20);
  ServerProcess server(GetParam().command(socket(), file), socket());
  open(server.url());
  channel_.reset();  // Nobody turns its loop here.
  auto first = *loop::IoThread::create({.name = "a"});
  auto second = *loop::IoThread::create({.name = "b"});
  NbdLoad low(*image_, first->loop(), {.first_block = 0});
  NbdLoad high(*image_, second->loop(), {.first_block = 64, .writes_per_flush = 500});
  low.start();
  high.start();
  for (uint32_t writes = 400; writes <= 1600; writes += 400) {
    low.wait_for_writes(writes);
    server.restart();
  }
  low.wait();
  high.wait();
  EXPECT_EQ(low.write_errors() + high.write_errors(), 0u);
  EXPECT_EQ(low.flush_errors() + high.flush_errors(), 0u);
  const auto bytes = dir_.read_file("disk.img");
  EXPECT_EQ(low.wrong_blocks(bytes), 0u);
  EXPECT_EQ(high.wrong_blocks(bytes), 0u);
}
INSTANTIATE_TEST_SUITE_P(
    Servers, NbdRealServerTest,
    ::testing::Values(
        RealServer{"nbdkit_file",
                   [](const std::string& socket, const std::string& file) {
                     return nbdkit(socket, {"file", file});
                   }},
        // Writes stay in a cache of its own, which dies with it, until they are flushed.
        RealServer{"nbdkit_cache",
                   [](const std::string& socket, const std::string& file) {
                     return nbdkit(socket, {"--filter=cache", "file", file, "cache=writeback"});
                   }},
        RealServer{"qemu_nbd_shared",
                   [](const std::string& socket, const std::string& file) {
                     return qemu_nbd(socket, 1, {file});
                   }},
        RealServer{"qemu_nbd_multi",
                   [](const std::string& socket, const std::string& file) {
                     return qemu_nbd(socket, 4, {file});
                   }}),
    [](const auto& parameter) { return std::string(parameter.param.name); });

TEST_F(NbdReconnectTest, ServerThatEndsWithItsLastClientIsStillThereForTheRequests) {
  const auto file = dir_.make_sparse("disk.img", 1 << 20);
  ServerProcess server(nbdkit(socket(), {"--filter=exitlast", "file", file}), socket());
  open(server.url());
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  EXPECT_EQ(flush(), 0);
}

TEST_F(NbdReconnectTest, WritesThatNobodyFlushesDoNotPileUp) {
  const auto file = dir_.make_sparse("disk.img", 64 << 20);
  ServerProcess server(nbdkit(socket(), {"file", file}), socket());
  open(server.url());
  wait_for_own_connection();
  // Several times what is kept; it must be let go of by flushes of our own.
  auto out = pattern(4 << 20);
  for (int round = 0; round < 5; ++round) {
    for (uint64_t at = 0; at < (48u << 20); at += out.size())
      EXPECT_EQ(run(BlockOp::kWrite, at, out), 0);
  }
  EXPECT_EQ(flush(), 0);
}

}  // namespace
}  // namespace skiff::block
