// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/open_image.h"
#include "loop/result.h"
#include "tests/block/nbd/nbd_fixture.h"
#include "tests/block/nbd/server_process.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kDiskBytes = uint64_t{64} << 20;

class NbdImageTest : public NbdFixture {
 protected:
  std::string socket() const { return dir_.path("nbd.sock"); }
  ServerProcess memory(std::vector<std::string> before = {}, std::vector<std::string> after = {}) {
    before.insert(before.end(), {"memory", "size=64M"});
    before.insert(before.end(), after.begin(), after.end());
    return ServerProcess(nbdkit(socket(), before), socket());
  }
};

TEST_F(NbdImageTest, ServersSizeAndAbilitiesAreTheDisks) {
  const ServerProcess server = memory();
  open(server.url());
  EXPECT_EQ(image_->size_bytes(), kDiskBytes);
  EXPECT_FALSE(image_->is_read_only());
  EXPECT_TRUE(image_->limits().discard);
  EXPECT_TRUE(image_->limits().write_zeroes);
  EXPECT_EQ(image_->name(), server.url());
}

TEST_F(NbdImageTest, WhatIsWrittenIsReadBack) {
  const ServerProcess server = memory();
  open(server.url());
  auto out = pattern(64 * 1024);
  EXPECT_EQ(run(BlockOp::kWrite, 512, out), 0);
  EXPECT_EQ(flush(), 0);
  std::vector<std::byte> in(out.size());
  EXPECT_EQ(run(BlockOp::kRead, 512, in), 0);
  EXPECT_EQ(in, out);
}

TEST_F(NbdImageTest, ScatteredAndVeryLargeRequestsAreWhole) {
  const ServerProcess server = memory();
  open(server.url());
  // More than the server takes at once, in buffers of all sizes, some of them empty.
  auto out = pattern(40 << 20);
  Probe write(BlockOp::kWrite, 4096, out.size());
  size_t at = 0;
  for (size_t step = 0; at < out.size(); ++step) {
    const size_t sizes[] = {512, 0, 70'000, 3, 9'000'000, 1};
    const size_t size = std::min(sizes[step % std::size(sizes)], out.size() - at);
    write.iov.push_back({out.data() + at, size});
    at += size;
  }
  write.request.iov = write.iov;
  EXPECT_EQ(run(write), 0);

  std::vector<std::byte> in(out.size());
  EXPECT_EQ(run(BlockOp::kRead, 4096, in), 0);
  EXPECT_TRUE(in == out);
  std::ranges::fill(in, std::byte{0});
  Probe read(BlockOp::kRead, 4096, in.size());
  for (at = 0; at < in.size(); at += 1 << 20)
    read.iov.push_back({in.data() + at, std::min<size_t>(1 << 20, in.size() - at)});
  read.request.iov = read.iov;
  EXPECT_EQ(run(read), 0);
  EXPECT_TRUE(in == out);
}

TEST_F(NbdImageTest, ManyRequestsAtOnceEachGetTheirOwn) {
  const ServerProcess server = memory({"--filter=delay"}, {"rdelay=1ms"});
  open(server.url());
  constexpr size_t kCount = 200;
  auto out = pattern(kCount * 4096);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  std::vector<std::byte> in(out.size());
  std::vector<std::unique_ptr<Probe>> probes;
  std::vector<BlockRequest*> batch;
  for (size_t i = 0; i < kCount; ++i) {
    probes.push_back(
        std::make_unique<Probe>(BlockOp::kRead, i * 4096, std::span(in).subspan(i * 4096, 4096)));
    batch.push_back(&probes.back()->request);
  }
  channel_->submit(batch);
  EXPECT_EQ(channel_->in_flight(), kCount);
  finish();
  for (const auto& probe : probes) EXPECT_EQ(probe->result, 0);
  EXPECT_TRUE(in == out);
}

TEST_F(NbdImageTest, DiscardedAndZeroedRangesReadAsZeroesAndSayWhatTheyAre) {
  const ServerProcess server = memory();
  open(server.url());
  auto out = pattern(256 * 1024);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  EXPECT_EQ(run_range(BlockOp::kDiscard, 0, 64 * 1024), 0);
  Probe zero(BlockOp::kWriteZeroes, 128 * 1024, 64 * 1024);
  zero.request.may_unmap = true;
  EXPECT_EQ(run(zero), 0);

  std::vector<std::byte> in(out.size());
  EXPECT_EQ(run(BlockOp::kRead, 0, in), 0);
  std::fill_n(out.begin(), 64 * 1024, std::byte{0});
  std::fill_n(out.begin() + 128 * 1024, 64 * 1024, std::byte{0});
  EXPECT_TRUE(in == out);

  Probe status(BlockOp::kStatus, 0, kDiskBytes);
  EXPECT_EQ(run(status), 0);
  EXPECT_EQ(status.request.status.length_bytes, 64u * 1024);
  EXPECT_TRUE(status.request.status.reads_as_zeroes);
  EXPECT_FALSE(status.request.status.allocated);
  Probe data(BlockOp::kStatus, 64 * 1024, 4096);
  EXPECT_EQ(run(data), 0);
  EXPECT_EQ(data.request.status.length_bytes, 4096u) << "more than was asked about";
  EXPECT_FALSE(data.request.status.reads_as_zeroes);
  EXPECT_TRUE(data.request.status.allocated);
}

TEST_F(NbdImageTest, ServerWithoutBlockStatusIsNotAsked) {
  const ServerProcess server = memory({"--filter=noextents", "--no-sr"});
  open(server.url());
  EXPECT_EQ(run_range(BlockOp::kStatus, 0, 4096), -EOPNOTSUPP);
}

TEST_F(NbdImageTest, ZeroesThatMustBeFastAreRefusedByAServerThatHasNone) {
  const ServerProcess server = memory({"--filter=nozero"}, {"zeromode=emulate"});
  open(server.url());
  Probe fast(BlockOp::kWriteZeroes, 0, 4096);
  fast.request.no_fallback = true;
  EXPECT_EQ(run(fast), -EOPNOTSUPP);
  EXPECT_EQ(run_range(BlockOp::kWriteZeroes, 0, 4096), 0);
}

// nbdkit's file plugin with the fua filter: each mode must end in the file.
class NbdFuaTest : public NbdImageTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(NbdFuaTest, FuaWritesAreThere) {
  const auto file = dir_.make_sparse("disk.img", 1 << 20);
  const ServerProcess server(
      nbdkit(socket(), {"--filter=fua", "file", file, std::string("fuamode=") + GetParam()}),
      socket());
  open(server.url());
  auto out = pattern(8192);
  Probe write(BlockOp::kWrite, 4096, out);
  write.request.fua = true;
  EXPECT_EQ(run(write), 0);
  Probe zero(BlockOp::kWriteZeroes, 4096, 512);
  zero.request.fua = true;
  EXPECT_EQ(run(zero), 0);
  EXPECT_EQ(flush(), 0);
  std::fill_n(out.begin(), 512, std::byte{0});
  const auto bytes = dir_.read_file("disk.img");
  EXPECT_TRUE(std::equal(out.begin(), out.end(), bytes.begin() + 4096));
}
INSTANTIATE_TEST_SUITE_P(Modes, NbdFuaTest, ::testing::Values("pass", "emulate", "native"),
                         [](const auto& parameter) { return std::string(parameter.param); });

TEST_F(NbdImageTest, ReadOnlyExportIsRefusedUnlessReadingIsAllThatIsWanted) {
  const ServerProcess server = memory({"--read-only"});
  EXPECT_THAT(refusal(server.url()).message(), HasSubstr("readonly=on"));
  NbdImage::Options read_only = options(server.url());
  read_only.access = WriteAccess::kReadOnly;
  open(read_only);
  EXPECT_TRUE(image_->is_read_only());
  std::vector<std::byte> bytes(512);
  EXPECT_EQ(run(BlockOp::kRead, 0, bytes), 0);
  EXPECT_EQ(run(BlockOp::kWrite, 0, bytes), -EROFS);
  EXPECT_EQ(run_range(BlockOp::kDiscard, 0, 512), -EROFS);
}

TEST_F(NbdImageTest, RequestsThatCannotBeAreRefusedHere) {
  const ServerProcess server = memory();
  open(server.url());
  std::vector<std::byte> bytes(1024);
  EXPECT_EQ(run(BlockOp::kRead, kDiskBytes - 512, bytes), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, uint64_t{1} << 63, bytes), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, UINT64_MAX - 511, bytes), -EINVAL);
  EXPECT_EQ(run(BlockOp::kRead, 100, bytes), -EINVAL);
  EXPECT_EQ(run_range(BlockOp::kDiscard, 512, UINT64_MAX - 1023), -EINVAL);
  EXPECT_EQ(run_range(BlockOp::kRead, 0, 0), 0);
}

TEST_F(NbdImageTest, ErrorsOfTheServerArriveAsTheyAre) {
  const ServerProcess server =
      memory({"--filter=error"}, {"error=ENOSPC", "error-pwrite-rate=100%"});
  open(server.url());
  std::vector<std::byte> bytes(512);
  EXPECT_EQ(run(BlockOp::kWrite, 0, bytes), -ENOSPC);
  EXPECT_EQ(run(BlockOp::kRead, 0, bytes), 0);
}

TEST_F(NbdImageTest, SmallTransfersAreKeptToWhatTheServerTakes) {
  const ServerProcess server = memory({"--filter=blocksize-policy"},
                                      {"blocksize-minimum=512", "blocksize-preferred=4096",
                                       "blocksize-maximum=65536", "blocksize-error-policy=error"});
  open(server.url());
  EXPECT_EQ(image_->limits().physical_block_bytes, 4096u);
  auto out = pattern(1 << 20);
  EXPECT_EQ(run(BlockOp::kWrite, 512, out), 0);
  std::vector<std::byte> in(out.size());
  EXPECT_EQ(run(BlockOp::kRead, 512, in), 0);
  EXPECT_TRUE(in == out);
}

TEST_F(NbdImageTest, ServerThatWantsLargeBlocksIsRefusedWithTheWayOut) {
  const ServerProcess server =
      memory({"--filter=blocksize-policy"}, {"blocksize-minimum=4096", "blocksize-preferred=4096"});
  EXPECT_THAT(refusal(server.url()).message(),
              AllOf(HasSubstr("4096"), HasSubstr("--filter=blocksize")));
}

TEST_F(NbdImageTest, UnknownExportIsNamed) {
  const auto file = dir_.make_sparse("disk.img", 1 << 20);
  const ServerProcess server(qemu_nbd(socket(), 1, {"--export-name=disk", file}), socket());
  EXPECT_THAT(refusal(server.url("nonsense")).message(), HasSubstr("nonsense"));
  open(server.url("disk"));
  EXPECT_EQ(image_->size_bytes(), uint64_t{1} << 20);
}

TEST_F(NbdImageTest, OnlyMultiConnGivesAChannelItsOwnConnection) {
  const auto file = dir_.make_sparse("disk.img", 1 << 20);
  {
    const ServerProcess server(qemu_nbd(socket(), 4, {file}), socket());
    open(server.url());
    wait_for_own_connection();
    auto out = pattern(4096);
    EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
    EXPECT_EQ(flush(), 0);
    const auto bytes = dir_.read_file("disk.img");
    EXPECT_TRUE(std::equal(out.begin(), out.end(), bytes.begin()));
    channel_.reset();
    image_.reset();
  }
  const ServerProcess server(qemu_nbd(socket(), 1, {file}), socket());
  open(server.url());
  std::vector<std::byte> in(4096);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(run(BlockOp::kRead, 0, in), 0);
  EXPECT_EQ(in, pattern(4096));
  EXPECT_FALSE(has_own_connection());
}

TEST_F(NbdImageTest, QueuesThatTheServerHasNoConnectionForAreServedAllTheSame) {
  const auto file = dir_.make_sparse("disk.img", 1 << 20);
  const ServerProcess server(qemu_nbd(socket(), 2, {file}), socket());
  open(server.url());
  wait_for_own_connection();
  auto second = image_->open_channel(*loop_);
  ASSERT_TRUE(second);
  std::swap(channel_, *second);
  auto out = pattern(4096);
  EXPECT_EQ(run(BlockOp::kWrite, 0, out), 0);
  EXPECT_FALSE(has_own_connection());
}

TEST_F(NbdImageTest, OpenImageTakesUrlsAndRefusesOtherFormatsBehindThem) {
  const auto file = dir_.make_sparse("disk.img", 1 << 20);
  const ServerProcess server(qemu_nbd(socket(), 1, {file}), socket());
  {
    auto image = open_image({.path = server.url()}, *pool_);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ((*image)->size_bytes(), uint64_t{1} << 20);
  }
  EXPECT_FALSE(open_image({.path = server.url(), .direct = DirectIo::kOn}, *pool_));
  {
    open(server.url());
    std::vector<std::byte> magic(512);
    std::ranges::copy(std::as_bytes(std::span("QFI\xfb", 4)), magic.begin());
    EXPECT_EQ(run(BlockOp::kWrite, 0, magic), 0);
    channel_.reset();
    image_.reset();
  }
  auto qcow2 = open_image({.path = server.url()}, *pool_);
  ASSERT_FALSE(qcow2);
  EXPECT_THAT(qcow2.error().message(), HasSubstr("qcow2"));
  EXPECT_TRUE(open_image({.path = server.url(), .format = ImageFormat::kRaw}, *pool_));
}

TEST_F(NbdImageTest, NobodyThereIsSaidAtOnce) {
  EXPECT_THAT(refusal("nbd+unix:///?socket=" + dir_.path("nobody")).message(),
              AllOf(HasSubstr("No such file"), HasSubstr("is the server running?")));
  EXPECT_THAT(refusal("nbd://127.0.0.1:1/").message(), HasSubstr("refused"));
  EXPECT_EQ(refusal("nbds://localhost/").kind(), loop::ErrorKind::kUnsupported);
}

}  // namespace
}  // namespace skiff::block
