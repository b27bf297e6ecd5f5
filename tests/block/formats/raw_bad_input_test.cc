// SPDX-License-Identifier: GPL-2.0-or-later
// Files that change under a running machine, and requests that nobody should send.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/formats/raw_image.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/block/formats/raw_fixture.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

using RawBadInputTest = RawChannelTest;

TEST_F(RawBadInputTest, FileThatVanishedIsServedToTheEnd) {
  open();
  auto out = pattern(4096);
  ASSERT_EQ(run(BlockOp::kWrite, 0, out), 0);
  ASSERT_EQ(unlink(dir_.path("disk.img").c_str()), 0);
  std::vector<std::byte> in(4096);
  EXPECT_EQ(run(BlockOp::kRead, 0, in), 0);
  EXPECT_EQ(in, out);
  EXPECT_EQ(run(BlockOp::kWrite, 8192, out), 0);
  EXPECT_EQ(run_range(BlockOp::kFlush, 0, 0), 0);
}

TEST_F(RawBadInputTest, FileThatTurnedReadOnlyFailsWritesAndNotReads) {
  // A seal is what an unprivileged test can do; a file system remounted read-only says EROFS.
  const loop::UniqueFd memory(memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_TRUE(memory);
  ASSERT_EQ(ftruncate(memory.get(), kDiskBytes), 0);
  open({.path = "/proc/self/fd/" + std::to_string(memory.get())});
  std::vector<std::byte> buffer(4096);
  ASSERT_EQ(run(BlockOp::kWrite, 0, buffer), 0);
  ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_EQ(run(BlockOp::kWrite, 0, buffer), -EPERM);
  EXPECT_EQ(run(BlockOp::kRead, 0, buffer), 0);
}

TEST_F(RawBadInputTest, LengthsAndOffsetsAtTheBordersOfTheirTypes) {
  open();
  std::vector<std::byte> sector(512);
  for (const uint64_t offset : {uint64_t{1} << 63, (uint64_t{1} << 63) - 512, ~uint64_t{0},
                                ~uint64_t{511}, kDiskBytes + 512}) {
    for (const BlockOp op : {BlockOp::kRead, BlockOp::kWrite})
      EXPECT_EQ(run(op, offset, sector), -EINVAL) << offset;
    for (const BlockOp op : {BlockOp::kDiscard, BlockOp::kWriteZeroes, BlockOp::kStatus}) {
      EXPECT_EQ(run_range(op, offset, 512), -EINVAL) << offset;
      EXPECT_EQ(run_range(op, 512, offset), -EINVAL) << offset;
    }
  }
  EXPECT_EQ(run(BlockOp::kRead, 0, std::span(sector).first(1)), -EINVAL);
  EXPECT_EQ(run(BlockOp::kWrite, 1, sector), -EINVAL);
  EXPECT_EQ(run(BlockOp::kWrite, 0, std::span<std::byte>()), 0);
  EXPECT_EQ(run_range(BlockOp::kWriteZeroes, kDiskBytes, 0), 0);
}

TEST_F(RawBadInputTest, ThousandSegmentsOfAnySizeMoveTheirBytes) {
  open();
  for (const uint32_t segments : {1024u, 1025u, 3000u}) {
    // Of one byte each, but for what makes the sum whole sectors.
    const size_t bytes = size_t{512} * (segments / 512 + 2);
    auto out = pattern(bytes, segments);
    std::vector<std::byte> in(bytes);
    const auto cut = [&](std::vector<std::byte>& memory) {
      std::vector<iovec> iov;
      for (size_t i = 0; i + 1 < segments; ++i) iov.push_back({&memory[i], 1});
      iov.push_back({&memory[segments - 1], bytes - segments + 1});
      return iov;
    };
    const auto transfer = [&](BlockOp op, std::vector<std::byte>& memory) {
      const std::vector<iovec> iov = cut(memory);
      Probe probe(op, 4096, bytes);
      probe.request.iov = iov;
      return run(probe);
    };
    ASSERT_EQ(transfer(BlockOp::kWrite, out), 0) << segments;
    ASSERT_EQ(transfer(BlockOp::kRead, in), 0) << segments;
    EXPECT_EQ(in, out) << segments;
  }
}

// In a process of its own, before that has threads: what it does there counts for nobody else.
// Returns its exit status; kCannot when the scene could not be set.
constexpr int kCannot = 77;
int in_child(const std::function<int()>& scene) {
  const pid_t child = fork();
  if (child == 0) _exit(scene());
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Writes the whole of a sparse image until something gives, then reads back; 0 when the first
// failure is `expected` and the image still works.
int fill(const std::string& path, IoEngineKind kind, int32_t expected) {
  auto loop = *loop::EventLoop::create();
  auto pool = *loop::WorkerPool::create({});
  auto file = FileDevice::open({.path = path});
  if (!file) return 10;
  RawImage image(*std::move(file), kind, *pool);
  auto channel = *image.open_channel(*loop);
  const auto run = [&](BlockOp op, uint64_t offset, std::span<std::byte> bytes) {
    Probe probe(op, offset, bytes);
    BlockRequest* one = &probe.request;
    channel->submit({&one, 1});
    while (probe.completions == 0) loop->run_once(loop::EventLoop::Wait::kUntilEvent);
    return probe.result;
  };
  std::vector<std::byte> out = pattern(16 * 1024);
  uint64_t offset = 0;
  int32_t result = 0;
  while (result == 0 && offset + out.size() <= image.size_bytes()) {
    result = run(BlockOp::kWrite, offset, out);
    if (result == 0) offset += out.size();
  }
  if (result != expected) return 11;
  if (offset == 0) return 12;
  // What was acknowledged is there, and the disk goes on working.
  std::vector<std::byte> in(out.size());
  for (uint64_t at = 0; at < offset; at += in.size())
    if (run(BlockOp::kRead, at, in) != 0 || in != out) return 13;
  return run(BlockOp::kWrite, 0, out) == 0 ? 0 : 14;
}

TEST(RawFullDiskTest, FileSystemWithoutRoomFailsTheWriteAndKeepsWhatItTook) {
  const TempDir dir;
  const auto scene = [&dir](IoEngineKind kind) {
    return [&dir, kind] {
      // root needs no user namespace; everybody else may be refused one.
      if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return kCannot;
      if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kCannot;
      if (mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=256k") != 0) return kCannot;
      return fill(dir.make_sparse("disk.img", kDiskBytes), kind, -ENOSPC);
    };
  };
  for (const IoEngineKind kind : {IoEngineKind::kAuto, IoEngineKind::kThreads}) {
    const int status = in_child(scene(kind));
    if (status == kCannot) GTEST_SKIP() << "no mount namespace for this user on this host";
    EXPECT_EQ(status, 0);
  }
}

TEST(RawFullDiskTest, FileSizeLimitFailsTheWriteAndNotTheProcess) {
  const TempDir dir;
  for (const IoEngineKind kind : {IoEngineKind::kAuto, IoEngineKind::kThreads}) {
    const std::string path = dir.make_sparse("disk.img", kDiskBytes);
    EXPECT_EQ(in_child([&path, kind] {
                signal(SIGXFSZ, SIG_IGN);  // As the program does.
                const rlimit limit = {.rlim_cur = 256 * 1024, .rlim_max = 256 * 1024};
                if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return kCannot;
                return fill(path, kind, -EFBIG);
              }),
              0);
  }
}

}  // namespace
}  // namespace skiff::block
