// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/adaptive/adaptive_counters.h"
#include "block/io_device.h"
#include "block/io_engine.h"
#include "block/null_device.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

constexpr uint64_t kFileBytes = 256 * 1024;

// A loop with a ring, and one without.
class AutoEngineTest : public ::testing::TestWithParam<loop::EventLoop::Backend> {
 protected:
  void SetUp() override {
    auto pool = loop::WorkerPool::create({});
    ASSERT_TRUE(pool) << pool.error().message();
    pool_ = *std::move(pool);
    auto made = loop::EventLoop::create({.backend = GetParam()});
    if (!made) GTEST_SKIP() << "NO IO_URING HERE: " << made.error().message();
    loop_ = *std::move(made);
  }

  void serve(const IoTarget& target) {
    auto engine = make_io_engine(IoEngineKind::kAuto, target, *loop_, *pool_);
    ASSERT_TRUE(engine) << engine.error().message();
    engine_ = *std::move(engine);
  }
  void open(const std::string& path) {
    fd_.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(fd_);
    serve({.fd = fd_.get()});
  }
  int32_t run(IoOp op, uint64_t offset_bytes, std::span<std::byte> bytes) {
    const iovec iov = {bytes.data(), bytes.size()};
    const bool transfer = op == IoOp::kRead || op == IoOp::kWrite;
    int32_t outcome = 0;
    IoRequest io;
    io.op = op;
    io.offset_bytes = offset_bytes;
    io.length_bytes = bytes.size();
    if (transfer) io.iov = {&iov, 1};
    io.owner = &outcome;
    io.done = [](IoRequest& request, int32_t result) {
      *static_cast<int32_t*>(request.owner) = result;
    };
    IoRequest* one = &io;
    engine_->submit({&one, 1});
    while (engine_->in_flight() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
    return outcome;
  }
  const AdaptiveCounters& counters() const { return *engine_->adaptive_counters(); }

  TempDir dir_;
  loop::UniqueFd fd_;
  std::unique_ptr<loop::EventLoop> loop_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<IoEngine> engine_;
};

INSTANTIATE_TEST_SUITE_P(Loops, AutoEngineTest,
                         ::testing::Values(loop::EventLoop::Backend::kIoUring,
                                           loop::EventLoop::Backend::kEpoll),
                         [](const auto& its) {
                           return its.param == loop::EventLoop::Backend::kEpoll ? "Epoll"
                                                                                : "IoUring";
                         });

TEST_P(AutoEngineTest, BytesAreRightWhicheverWayTheyTake) {
  auto expected = pattern(kFileBytes);
  open(dir_.make_file("file", expected));
  std::minstd_rand random(3);
  std::vector<std::byte> buffer(64 * 1024);
  for (int i = 0; i < 4000; ++i) {
    const uint64_t offset_bytes = random() % kFileBytes;
    const size_t length =
        std::min<uint64_t>(1 + random() % buffer.size(), kFileBytes - offset_bytes);
    const std::span bytes(buffer.data(), length);
    const auto place = expected.begin() + static_cast<ptrdiff_t>(offset_bytes);
    if (random() % 2 == 0) {
      ASSERT_EQ(run(IoOp::kRead, offset_bytes, bytes), static_cast<int32_t>(length));
      ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), place));
    } else {
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
      ASSERT_EQ(run(IoOp::kWrite, offset_bytes, bytes), static_cast<int32_t>(length));
      std::copy(bytes.begin(), bytes.end(), place);
    }
  }
  EXPECT_EQ(dir_.read_file("file"), expected);
  EXPECT_GT(counters().inline_calls.load(), 0U);
}

TEST_P(AutoEngineTest, AFileInMemoryIsReadInline) {
  open(dir_.make_file("file", pattern(kFileBytes)));
  std::vector<std::byte> buffer(4096);
  for (int i = 0; i < 4000; ++i) ASSERT_EQ(run(IoOp::kRead, 4096, buffer), 4096);
  EXPECT_GT(counters().inline_calls.load(), 3000U);
  EXPECT_EQ(run(IoOp::kRead, kFileBytes - 100, buffer), 100);
  EXPECT_EQ(run(IoOp::kRead, kFileBytes, buffer), 0);
}

TEST_P(AutoEngineTest, WhatIsNotInMemoryIsReadAllTheSame) {
  const auto content = pattern(kFileBytes);
  open(dir_.make_file("file", content));
  ASSERT_EQ(fsync(fd_.get()), 0);
  std::vector<std::byte> buffer(4096);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(run(IoOp::kRead, 0, buffer), 4096);
  for (uint64_t offset_bytes = 0; offset_bytes < kFileBytes; offset_bytes += 4096) {
    ASSERT_EQ(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    ASSERT_EQ(run(IoOp::kRead, offset_bytes, buffer), 4096);
    ASSERT_TRUE(std::equal(buffer.begin(), buffer.end(),
                           content.begin() + static_cast<ptrdiff_t>(offset_bytes)));
  }
}

TEST_P(AutoEngineTest, ADeviceThatTakesMillisecondsNeverHoldsTheLoop) {
  const NullDevice device({.latency_ns = 5'000'000});
  serve(device.target());
  std::vector<std::byte> buffer(4096);
  for (int i = 0; i < 40; ++i) ASSERT_EQ(run(IoOp::kRead, 0, buffer), 4096);
  EXPECT_EQ(counters().inline_calls.load(), 0U);
}

TEST_P(AutoEngineTest, WhatMustReachTheMediumOrIsLargeIsNeverInline) {
  open(dir_.make_sparse("file", 1 << 20));
  std::vector<std::byte> large(512 * 1024);
  for (int i = 0; i < 100; ++i) {
    run(IoOp::kFlush, 0, {});
    run(IoOp::kDiscard, 0, std::span(large).first(4096));
    run(IoOp::kWriteZeroes, 0, std::span(large).first(4096));
    run(IoOp::kRead, 0, large);
  }
  EXPECT_EQ(counters().inline_calls.load() + counters().nowait_misses.load(), 0U);
}

TEST_P(AutoEngineTest, OfAFewHundredRequestsInABatchEachCompletesOnceAndOthersGetTheirTurn) {
  open(dir_.make_file("file", pattern(kFileBytes)));
  std::vector<std::byte> buffer(4096);
  for (int i = 0; i < 2000; ++i) run(IoOp::kRead, 0, buffer);
  constexpr size_t kRequests = 400;
  // A buffer for each: workers fill them at the same time.
  std::vector<std::byte> buffers(kRequests * 4096);
  std::vector<iovec> iovs(kRequests);
  std::vector<IoRequest> requests(kRequests);
  std::vector<IoRequest*> batch;
  batch.reserve(kRequests);
  int completions = 0;
  for (size_t i = 0; i < kRequests; ++i) {
    iovs[i] = {&buffers[i * 4096], 4096};
    IoRequest& io = requests[i];
    io = {.op = IoOp::kRead, .length_bytes = 4096, .iov = {&iovs[i], 1}, .owner = &completions};
    io.done = [](IoRequest& request, int32_t result) {
      EXPECT_EQ(result, 4096);
      ++*static_cast<int*>(request.owner);
    };
    batch.push_back(&io);
  }
  engine_->submit(batch);
  EXPECT_EQ(completions, 0);
  EXPECT_EQ(engine_->in_flight(), batch.size());
  // A call is taken to last half a microsecond at the very least, a turn 50 of them.
  loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  EXPECT_LE(completions, 101);
  while (engine_->in_flight() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  EXPECT_EQ(completions, 400);
}

TEST_P(AutoEngineTest, TheLastCompletionMayDestroyTheEngine) {
  open(dir_.make_file("file", pattern(kFileBytes)));
  std::vector<std::byte> buffer(4096);
  for (const int before : {0, 3000}) {  // By the ring or the pool, and inline.
    open(dir_.path("file"));
    for (int i = 0; i < before; ++i) run(IoOp::kRead, 0, buffer);
    const iovec iov = {buffer.data(), buffer.size()};
    IoRequest io = {.op = IoOp::kRead, .length_bytes = 4096, .iov = {&iov, 1}, .owner = &engine_};
    io.done = [](IoRequest& request, int32_t) {
      static_cast<std::unique_ptr<IoEngine>*>(request.owner)->reset();
    };
    IoRequest* one = &io;
    engine_->submit({&one, 1});
    while (engine_ != nullptr) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
    loop_->run_once(loop::EventLoop::Wait::kNo);
  }
}

}  // namespace
}  // namespace skiff::block
