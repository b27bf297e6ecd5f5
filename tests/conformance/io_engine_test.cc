// SPDX-License-Identifier: GPL-2.0-or-later
// What every engine promises, whatever it is made of.
#include "block/io_engine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

struct EngineCase {
  const char* name;
  loop::EventLoop::Backend backend;
  IoEngineKind kind;
};

void PrintTo(const EngineCase& engine, std::ostream* out) { *out << engine.name; }

// A request and what became of it.
struct Probe {
  Probe() {
    io.owner = this;
    io.done = [](IoRequest& request, int32_t outcome) {
      auto& probe = *static_cast<Probe*>(request.owner);
      ++probe.completions;
      probe.result = outcome;
      if (probe.submitting != nullptr) probe.inside_submit = *probe.submitting;
    };
  }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  void set(IoOp op, uint64_t offset_bytes, std::span<const iovec> iov) {
    io.op = op;
    io.offset_bytes = offset_bytes;
    io.iov = iov;
    io.length_bytes = 0;
    for (const iovec& segment : iov) io.length_bytes += segment.iov_len;
  }

  IoRequest io;
  uint32_t completions = 0;
  int32_t result = 0;
  const bool* submitting = nullptr;
  bool inside_submit = false;
};

class IoEngineTest : public ::testing::TestWithParam<EngineCase> {
 protected:
  void SetUp() override {
    auto pool = loop::WorkerPool::create({});
    ASSERT_TRUE(pool) << pool.error().message();
    pool_ = *std::move(pool);
    auto made = loop::EventLoop::create({.backend = GetParam().backend});
    if (!made) GTEST_SKIP() << made.error().message();
    loop_ = *std::move(made);
  }
  void TearDown() override { EXPECT_TRUE(engine_ == nullptr || engine_->in_flight() == 0); }

  void open(const std::string& path, int access = O_RDWR) {
    serve(loop::UniqueFd(::open(path.c_str(), access | O_CLOEXEC)));
  }
  // An engine belongs to one descriptor.
  void serve(loop::UniqueFd fd) {
    engine_.reset();
    fd_ = std::move(fd);
    auto engine = make_io_engine(GetParam().kind, {.fd = fd_.get()}, *loop_, *pool_);
    ASSERT_TRUE(engine) << engine.error().message();
    engine_ = *std::move(engine);
  }
  void finish() {
    while (engine_->in_flight() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
  int32_t run(Probe& probe) {
    IoRequest* one = &probe.io;
    engine_->submit({&one, 1});
    finish();
    EXPECT_EQ(probe.completions, 1u);
    return probe.result;
  }
  int32_t run(IoOp op, uint64_t offset_bytes, std::span<const iovec> iov) {
    Probe probe;
    probe.set(op, offset_bytes, iov);
    return run(probe);
  }
  int32_t run_range(IoOp op, uint64_t offset_bytes, uint64_t length_bytes) {
    Probe probe;
    probe.set(op, offset_bytes, {});
    probe.io.length_bytes = length_bytes;
    return run(probe);
  }

  TempDir dir_;
  loop::UniqueFd fd_;
  // The pool goes before the loop: a worker may still be on its way out of post().
  std::unique_ptr<loop::EventLoop> loop_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<IoEngine> engine_;
};

TEST_P(IoEngineTest, WritesWhatIsReadBack) {
  open(dir_.make_sparse("file", 64 * 1024));
  auto out = pattern(8192);
  std::vector<std::byte> in(out.size());
  const iovec from = {out.data(), out.size()};
  const iovec into = {in.data(), in.size()};
  EXPECT_EQ(run(IoOp::kWrite, 4096, {&from, 1}), 8192);
  EXPECT_EQ(run(IoOp::kRead, 4096, {&into, 1}), 8192);
  EXPECT_EQ(in, out);
}

TEST_P(IoEngineTest, CompletionNeverRunsInsideSubmit) {
  open(dir_.make_sparse("file", 4096));
  std::array<char, 512> buffer;
  const iovec iov = {buffer.data(), buffer.size()};
  std::array<Probe, 16> probes;
  std::vector<IoRequest*> batch;
  bool submitting = true;
  for (Probe& probe : probes) {
    probe.set(IoOp::kRead, 0, {&iov, 1});
    probe.submitting = &submitting;
    batch.push_back(&probe.io);
  }
  probes[3].io.offset_bytes = uint64_t{1} << 63;  // A refusal must not be quicker.
  probes[5].set(IoOp::kFlush, 0, {});
  engine_->submit(batch);
  submitting = false;
  EXPECT_EQ(engine_->in_flight(), probes.size());
  finish();
  for (const Probe& probe : probes) {
    EXPECT_EQ(probe.completions, 1u);
    EXPECT_FALSE(probe.inside_submit);
  }
  EXPECT_EQ(probes[3].result, -EINVAL);
}

TEST_P(IoEngineTest, ReadPastEndOfFileReportsShortCount) {
  const auto content = pattern(1000);
  open(dir_.make_file("file", content));
  std::vector<std::byte> in(2048);
  const std::array<iovec, 2> iov = {iovec{in.data(), 300}, iovec{in.data() + 300, 1748}};
  EXPECT_EQ(run(IoOp::kRead, 0, iov), 1000);
  EXPECT_TRUE(std::equal(content.begin(), content.end(), in.begin()));
  EXPECT_EQ(run(IoOp::kRead, 5000, iov), 0);
}

TEST_P(IoEngineTest, ManySegmentsArriveInOrder) {
  // One more than IOV_MAX in the last of the cases.
  for (const size_t count : {2u, 1024u, 1025u, 3000u}) {
    open(dir_.make_sparse("file", 0));
    auto out = pattern(count * 3);
    std::vector<std::byte> in(out.size());
    std::vector<iovec> from;
    std::vector<iovec> into;
    for (size_t i = 0; i < count; ++i) {
      from.push_back({out.data() + i * 3, 3});
      into.push_back({in.data() + i * 3, 3});
    }
    ASSERT_EQ(run(IoOp::kWrite, 7, from), static_cast<int32_t>(out.size()));
    ASSERT_EQ(run(IoOp::kRead, 7, into), static_cast<int32_t>(out.size()));
    EXPECT_EQ(in, out) << count;
  }
}

TEST_P(IoEngineTest, BatchOfManyCompletesEachOnce) {
  constexpr size_t kRequests = 1000;  // More than a ring's queue holds.
  open(dir_.make_sparse("file", kRequests * 512));
  auto out = pattern(kRequests * 512);
  std::vector<iovec> iov;
  std::vector<Probe> probes(kRequests);
  std::vector<IoRequest*> batch;
  iov.reserve(kRequests);
  for (size_t i = 0; i < kRequests; ++i) iov.push_back({out.data() + i * 512, 512});
  for (size_t i = 0; i < kRequests; ++i) {
    probes[i].set(IoOp::kWrite, i * 512, {&iov[i], 1});
    batch.push_back(&probes[i].io);
  }
  engine_->submit(batch);
  EXPECT_EQ(engine_->in_flight(), kRequests);
  finish();
  for (const Probe& probe : probes) {
    ASSERT_EQ(probe.completions, 1u);
    ASSERT_EQ(probe.result, 512);
  }
  EXPECT_EQ(dir_.read_file("file"), out);
}

TEST_P(IoEngineTest, CompletionMaySubmitTheNext) {
  open(dir_.make_sparse("file", 4096));
  struct Chain {
    IoEngine* engine;
    IoRequest io;
    int left = 50;
  } chain{.engine = engine_.get(), .io = {}};
  std::array<char, 64> buffer;
  const iovec iov = {buffer.data(), buffer.size()};
  chain.io = {.op = IoOp::kRead,
              .length_bytes = buffer.size(),
              .iov = {&iov, 1},
              .done =
                  [](IoRequest& io, int32_t result) {
                    auto& self = *static_cast<Chain*>(io.owner);
                    EXPECT_EQ(result, 64);
                    IoRequest* one = &io;
                    if (--self.left > 0) self.engine->submit({&one, 1});
                  },
              .owner = &chain};
  IoRequest* one = &chain.io;
  engine_->submit({&one, 1});
  finish();
  EXPECT_EQ(chain.left, 0);
}

TEST_P(IoEngineTest, FlushSucceedsOnAFileAndFailsWhereThereIsNothingToFlush) {
  open(dir_.make_sparse("file", 4096));
  EXPECT_EQ(run_range(IoOp::kFlush, 0, 0), 0);
  std::array<int, 2> ends = {-1, -1};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const loop::UniqueFd read_end(ends[0]);
  serve(loop::UniqueFd(ends[1]));
  EXPECT_EQ(run_range(IoOp::kFlush, 0, 0), -EINVAL);
}

TEST_P(IoEngineTest, DiscardAndWriteZeroesLeaveZeroesAndTheSize) {
  for (const IoOp op : {IoOp::kDiscard, IoOp::kWriteZeroes}) {
    auto expected = pattern(64 * 1024);
    open(dir_.make_file("file", expected));
    const int32_t result = run_range(op, 4096, 60 * 1024);
    if (result == -EOPNOTSUPP) GTEST_SKIP() << "The file system cannot do this";
    ASSERT_EQ(result, 0);
    std::fill(expected.begin() + 4096, expected.end(), std::byte{0});
    EXPECT_EQ(dir_.read_file("file"), expected);
  }
}

TEST_P(IoEngineTest, RefusalsComeBackAsErrnoNumbers) {
  open(dir_.make_sparse("file", 4096), O_RDONLY);
  std::array<char, 512> buffer = {};
  const iovec iov = {buffer.data(), buffer.size()};
  EXPECT_EQ(run(IoOp::kWrite, 0, {&iov, 1}), -EBADF);
  const iovec wild = {reinterpret_cast<void*>(uintptr_t{1} << 60), 512};
  EXPECT_EQ(run(IoOp::kRead, 0, {&wild, 1}), -EFAULT);
  EXPECT_EQ(run(IoOp::kRead, uint64_t{1} << 63, {&iov, 1}), -EINVAL);
}

constexpr std::array kEngineCases = {
    EngineCase{"io_uring", loop::EventLoop::Backend::kIoUring, IoEngineKind::kIoUring},
    EngineCase{"threads", loop::EventLoop::Backend::kEpoll, IoEngineKind::kThreads},
    EngineCase{"threads_beside_a_ring", loop::EventLoop::Backend::kIoUring, IoEngineKind::kThreads},
    EngineCase{"auto", loop::EventLoop::Backend::kIoUring, IoEngineKind::kAuto},
    EngineCase{"auto_without_a_ring", loop::EventLoop::Backend::kEpoll, IoEngineKind::kAuto}};

INSTANTIATE_TEST_SUITE_P(Engines, IoEngineTest, ::testing::ValuesIn(kEngineCases),
                         [](const auto& its) { return std::string(its.param.name); });

TEST(MakeIoEngineTest, IoUringWithoutARingIsRefusedWithAReason) {
  auto pool = loop::WorkerPool::create({});
  auto made = loop::EventLoop::create({.backend = loop::EventLoop::Backend::kEpoll});
  ASSERT_TRUE(pool && made);
  const auto engine = make_io_engine(IoEngineKind::kIoUring, IoTarget{}, **made, **pool);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().kind(), loop::ErrorKind::kUnsupported);
}

}  // namespace
}  // namespace skiff::block
