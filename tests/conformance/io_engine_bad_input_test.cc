// SPDX-License-Identifier: GPL-2.0-or-later
// What no engine can do, and what each of them says then: what the blocking system call says.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "block/io_engine.h"
#include "block/request_fixup.h"
#include "loop/unique_fd.h"
#include "tests/conformance/io_engine_suite.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

constexpr uint64_t kSignBit = uint64_t{1} << 63;

int32_t call(int fd, IoOp op, uint64_t offset_bytes, const iovec& iov) {
  const auto offset = static_cast<off_t>(offset_bytes);
  const ssize_t result =
      op == IoOp::kRead ? preadv(fd, &iov, 1, offset) : pwritev(fd, &iov, 1, offset);
  return result < 0 ? -errno : static_cast<int32_t>(result);
}

TEST_P(IoEngineTest, OffsetsThatNoFileHasAreInvalid) {
  for (const Storage storage : kAllStorage) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 4 * kBlock)) continue;
    const IoBuffer buffer(kBlock);
    const iovec iov = buffer.whole();
    // The last of them means "where the file is now" to preadv2() and io_uring.
    for (const uint64_t offset :
         {kSignBit - kBlock, kSignBit, kSignBit + kBlock, -uint64_t{kBlock}, ~uint64_t{0}}) {
      SCOPED_TRACE(offset);
      EXPECT_EQ(run(IoOp::kRead, offset, {&iov, 1}), -EINVAL);
      EXPECT_EQ(run(IoOp::kWrite, offset, {&iov, 1}), -EINVAL);
      EXPECT_EQ(run_range(IoOp::kDiscard, offset, kBlock), -EINVAL);
      EXPECT_EQ(run_range(IoOp::kWriteZeroes, offset, kBlock), -EINVAL);
    }
    EXPECT_EQ(run_range(IoOp::kDiscard, kBlock, ~uint64_t{0}), -EINVAL);
  }
}

TEST_P(IoEngineTest, LastOffsetsThatAFileMayHaveAreBehindTheEnd) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 4 * kBlock)) continue;
    const IoBuffer buffer(kBlock);
    const iovec iov = buffer.whole();
    const uint64_t offset = kSignBit - 2 * kBlock;
    EXPECT_EQ(run(IoOp::kRead, offset, {&iov, 1}), 0);
    EXPECT_EQ(run(IoOp::kWrite, offset, {&iov, 1}), call(fd_.get(), IoOp::kWrite, offset, iov));
  }
  ASSERT_TRUE(open(Storage::kNull, 4 * kBlock));
  const IoBuffer buffer(kBlock);
  const iovec iov = buffer.whole();
  EXPECT_EQ(run(IoOp::kRead, kSignBit - 2 * kBlock, {&iov, 1}), 0);
  EXPECT_EQ(run(IoOp::kWrite, kSignBit - 2 * kBlock, {&iov, 1}), -ENOSPC);
}

TEST_P(IoEngineTest, TransfersOfNothingMoveNothing) {
  for (const Storage storage : kAllStorage) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 4 * kBlock)) continue;
    const IoBuffer buffer(kBlock);
    const iovec empty = buffer.part(0, 0);
    for (const IoOp op : {IoOp::kRead, IoOp::kWrite}) {
      EXPECT_EQ(run(op, 0, {}), 0);
      EXPECT_EQ(run(op, kBlock, {&empty, 1}), 0);
    }
    Probe durable;
    durable.set(IoOp::kWrite, kBlock, {&empty, 1});
    durable.io.fua = true;
    EXPECT_EQ(run(durable), 0);
    // As fallocate(2) has it.
    EXPECT_EQ(run_range(IoOp::kDiscard, kBlock, 0), -EINVAL);
    EXPECT_EQ(run_range(IoOp::kWriteZeroes, kBlock, 0), -EINVAL);
  }
}

TEST_P(IoEngineTest, OneByteAtAnOddOffsetIsWhatTheFileSaysItIs) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, pattern(4 * kBlock))) continue;
    const IoBuffer buffer(kBlock);
    const iovec one = buffer.part(3, 1);
    const int32_t read = call(fd_.get(), IoOp::kRead, 1001, one);
    const int32_t written = call(fd_.get(), IoOp::kWrite, 1001, one);
    EXPECT_EQ(run(IoOp::kRead, 1001, {&one, 1}), read);
    EXPECT_EQ(run(IoOp::kWrite, 1001, {&one, 1}), written);
    EXPECT_TRUE(read == 1 || storage == Storage::kDirect);
  }
  ASSERT_TRUE(open(Storage::kNull, 4 * kBlock));
  std::byte byte{7};
  const iovec one = {&byte, 1};
  EXPECT_EQ(run(IoOp::kRead, 1001, {&one, 1}), 1);
  EXPECT_EQ(run(IoOp::kWrite, 1001, {&one, 1}), 1);
}

TEST_P(IoEngineTest, MisalignedDirectTransfersAreWhatTheFileSaysTheyAre) {
  ASSERT_TRUE(open(Storage::kDirect, pattern(4 * kBlock)));
  const IoBuffer buffer(2 * kBlock);
  const std::array cases = {std::pair{uint64_t{kBlock}, buffer.part(1, kBlock)},
                            std::pair{uint64_t{kBlock + 1}, buffer.part(0, kBlock)},
                            std::pair{uint64_t{kBlock}, buffer.part(0, kBlock + 1)}};
  for (const auto& [offset, iov] : cases) {
    for (const IoOp op : {IoOp::kRead, IoOp::kWrite}) {
      const int32_t expected = call(fd_.get(), op, offset, iov);
      EXPECT_EQ(run(op, offset, {&iov, 1}), expected) << offset;
    }
  }
}

TEST_P(IoEngineTest, RefusalsComeBackAsErrnoNumbers) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 4 * kBlock)) continue;
    const IoBuffer buffer(kBlock);
    const iovec iov = buffer.whole();
    const iovec wild = {reinterpret_cast<void*>(uintptr_t{1} << 60), kBlock};
    EXPECT_EQ(run(IoOp::kRead, 0, {&wild, 1}), -EFAULT);
    EXPECT_EQ(run(IoOp::kWrite, 0, {&wild, 1}), -EFAULT);
    const int direct = storage == Storage::kDirect ? O_DIRECT : 0;
    serve(loop::UniqueFd(::open(path().c_str(), O_RDONLY | O_CLOEXEC | direct)), direct != 0);
    EXPECT_EQ(run(IoOp::kWrite, 0, {&iov, 1}), -EBADF);
    EXPECT_EQ(run_range(IoOp::kDiscard, 0, kBlock), -EBADF);
    EXPECT_EQ(run(IoOp::kRead, 0, {&iov, 1}), static_cast<int32_t>(kBlock));
  }
}

TEST_P(IoEngineTest, BadRequestsInABatchHarmNoOthers) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 64 * kBlock)) continue;
    std::array<Probe, 64> probes;
    const IoBuffer buffer(probes.size() * kBlock);
    const std::vector<iovec> good = blocks_of(buffer);
    const iovec wild = {reinterpret_cast<void*>(uintptr_t{1} << 60), kBlock};
    std::vector<IoRequest*> batch;
    for (size_t i = 0; i < probes.size(); ++i) {
      probes[i].set(IoOp::kRead, i * kBlock, {i % 3 == 1 ? &wild : &good[i], 1});
      if (i % 3 == 2) probes[i].io.offset_bytes = kSignBit;
      batch.push_back(&probes[i].io);
    }
    engine_->submit(batch);
    finish();
    for (size_t i = 0; i < probes.size(); ++i) {
      EXPECT_EQ(probes[i].completions, 1u);
      const std::array expected = {static_cast<int32_t>(kBlock), -EFAULT, -EINVAL};
      EXPECT_EQ(probes[i].result, expected[i % 3]) << i;
    }
  }
}

TEST_P(IoEngineTest, NoRoomIsReportedAsSuch) {
  const loop::UniqueFd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(full);
  serve_anyway(loop::UniqueFd(fcntl(full.get(), F_DUPFD_CLOEXEC, 0)));
  const IoBuffer buffer(kBlock);
  const iovec iov = buffer.whole();
  // The kernel's aio does not write to this device at all.
  const bool aio = GetParam().kind == IoEngineKind::kLinuxAio;
  EXPECT_EQ(run(IoOp::kWrite, 0, {&iov, 1}), aio ? -EINVAL : -ENOSPC);
}

}  // namespace
}  // namespace skiff::block
