// SPDX-License-Identifier: GPL-2.0-or-later
// What every engine promises, whatever it is made of: that the bytes arrive, and how it completes.
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
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/io_device.h"
#include "block/request_fixup.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/unique_fd.h"
#include "loop/worker_pool.h"
#include "tests/conformance/io_engine_suite.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

TEST_P(IoEngineTest, WritesWhatIsReadBack) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 64 * 1024)) continue;
    const IoBuffer out(pattern(8192));
    const IoBuffer in(8192);
    const iovec from = out.whole();
    const iovec into = in.whole();
    EXPECT_EQ(run(IoOp::kWrite, 4096, {&from, 1}), 8192);
    EXPECT_EQ(run(IoOp::kRead, 4096, {&into, 1}), 8192);
    EXPECT_TRUE(std::ranges::equal(in.bytes(), out.bytes()));
  }
}

TEST_P(IoEngineTest, NullDeviceTakesEverythingAndLeavesBuffersAlone) {
  ASSERT_TRUE(open(Storage::kNull, 64 * 1024));
  const IoBuffer buffer(pattern(8192));
  const iovec iov = buffer.whole();
  EXPECT_EQ(run(IoOp::kWrite, 4096, {&iov, 1}), 8192);
  EXPECT_EQ(run(IoOp::kRead, 4096, {&iov, 1}), 8192);
  EXPECT_TRUE(std::ranges::equal(buffer.bytes(), pattern(8192)));
  EXPECT_EQ(run(IoOp::kRead, 60 * 1024, {&iov, 1}), 4096);
  EXPECT_EQ(run(IoOp::kRead, 64 * 1024, {&iov, 1}), 0);
  EXPECT_EQ(run(IoOp::kWrite, 64 * 1024, {&iov, 1}), -ENOSPC);
  EXPECT_EQ(run_range(IoOp::kFlush, 0, 0), 0);
  EXPECT_EQ(run_range(IoOp::kDiscard, 0, 64 * 1024), 0);
  EXPECT_EQ(run_range(IoOp::kWriteZeroes, 4096, 4096), 0);
}

TEST_P(IoEngineTest, CompletionNeverRunsInsideSubmit) {
  for (const Storage storage : kAllStorage) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, kBlock)) continue;
    std::array<Probe, 16> probes;
    const IoBuffer buffer(probes.size() * kBlock);
    const std::vector<iovec> blocks = blocks_of(buffer);
    std::vector<IoRequest*> batch;
    bool submitting = true;
    for (size_t i = 0; i < probes.size(); ++i) {
      probes[i].set(IoOp::kRead, 0, {&blocks[i], 1});
      probes[i].submitting = &submitting;
      batch.push_back(&probes[i].io);
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
    EXPECT_EQ(probes[4].result, static_cast<int32_t>(kBlock));
  }
}

TEST_P(IoEngineTest, ReadPastEndOfFileReportsShortCount) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    const auto content = pattern(6144);
    if (!open(storage, content)) continue;
    const IoBuffer in(2 * kBlock);
    const std::array iov = {in.part(0, kBlock), in.part(kBlock, kBlock)};
    EXPECT_EQ(run(IoOp::kRead, 0, iov), 6144);
    EXPECT_TRUE(std::ranges::equal(content, in.bytes().first(6144)));
    EXPECT_EQ(run(IoOp::kRead, 2 * kBlock, iov), 0);
  }
}

TEST_P(IoEngineTest, FileThatShrinksInUseGivesTheEndOfTheFile) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, pattern(8 * kBlock))) continue;
    const IoBuffer in(4 * kBlock);
    const iovec iov = in.whole();
    ASSERT_EQ(run(IoOp::kRead, 0, {&iov, 1}), static_cast<int32_t>(4 * kBlock));
    ASSERT_EQ(truncate(path().c_str(), kBlock), 0);
    EXPECT_EQ(run(IoOp::kRead, 0, {&iov, 1}), static_cast<int32_t>(kBlock));
    EXPECT_EQ(run(IoOp::kRead, 4 * kBlock, {&iov, 1}), 0);
    // And a write there makes it longer again: whoever serves a disk checks the range.
    EXPECT_EQ(run(IoOp::kWrite, 4 * kBlock, {&iov, 1}), static_cast<int32_t>(4 * kBlock));
  }
}

TEST_P(IoEngineTest, DeletedFileIsServedOn) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 8 * kBlock)) continue;
    ASSERT_EQ(unlink(path().c_str()), 0);
    const IoBuffer out(pattern(kBlock));
    const IoBuffer in(kBlock);
    const iovec from = out.whole();
    const iovec into = in.whole();
    EXPECT_EQ(run(IoOp::kWrite, kBlock, {&from, 1}), static_cast<int32_t>(kBlock));
    EXPECT_EQ(run(IoOp::kRead, kBlock, {&into, 1}), static_cast<int32_t>(kBlock));
    EXPECT_TRUE(std::ranges::equal(in.bytes(), out.bytes()));
  }
}

TEST_P(IoEngineTest, ManySegmentsArriveInOrder) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    // More than IOV_MAX in the last two of the cases, more than one step of bytes in all of them
    // but the first.
    for (const size_t count : {2u, 1024u, 1025u, 3000u}) {
      const size_t segment = storage == Storage::kDirect ? kBlock : 700;
      if (!open(storage, 0)) break;
      const IoBuffer out(pattern(count * segment));
      const IoBuffer in(count * segment);
      std::vector<iovec> from;
      std::vector<iovec> into;
      for (size_t i = 0; i < count; ++i) {
        from.push_back(out.part(i * segment, segment));
        into.push_back(in.part(i * segment, segment));
      }
      const auto all = static_cast<int32_t>(count * segment);
      ASSERT_EQ(run(IoOp::kWrite, kBlock, from), all);
      ASSERT_EQ(run(IoOp::kRead, kBlock, into), all);
      EXPECT_TRUE(std::ranges::equal(in.bytes(), out.bytes())) << count;
    }
  }
}

TEST_P(IoEngineTest, EmptySegmentsInBetweenChangeNothing) {
  for (const Storage storage : {Storage::kTmpfs, Storage::kRegular}) {
    if (!open(storage, 0)) continue;
    const IoBuffer out(pattern(3000));
    const IoBuffer in(3000);
    const std::array from = {out.part(0, 0), out.part(0, 1000), out.part(1000, 0),
                             out.part(1000, 2000), out.part(0, 0)};
    const std::array into = {in.part(0, 0), in.part(0, 1000), in.part(1000, 0), in.part(1000, 2000),
                             in.part(0, 0)};
    EXPECT_EQ(run(IoOp::kWrite, 5, from), 3000);
    EXPECT_EQ(run(IoOp::kRead, 5, into), 3000);
    EXPECT_TRUE(std::ranges::equal(in.bytes(), out.bytes()));
  }
}

TEST_P(IoEngineTest, TransfersLargerThanAStepArriveWhole) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    constexpr size_t kBytes = 3 * RequestProgress::kMaxStepBytes + 2 * kBlock;
    if (!open(storage, kBytes)) continue;
    const IoBuffer out(pattern(kBytes));
    const IoBuffer in(kBytes);
    const iovec whole = out.whole();
    // The first does not fit into a step, and the others not together.
    constexpr size_t kFirst = RequestProgress::kMaxStepBytes + kBlock;
    const std::array into = {in.part(0, kFirst), in.part(kFirst, kFirst),
                             in.part(2 * kFirst, kBytes - 2 * kFirst)};
    ASSERT_EQ(run(IoOp::kWrite, 0, {&whole, 1}), static_cast<int32_t>(kBytes));
    ASSERT_EQ(run(IoOp::kRead, 0, into), static_cast<int32_t>(kBytes));
    EXPECT_TRUE(std::ranges::equal(in.bytes(), out.bytes()));
  }
}

// More than a ring's queue or an aio context holds.
TEST_P(IoEngineTest, BatchOfManyCompletesEachOnce) {
  for (const Storage storage : kAllStorage) {
    SCOPED_TRACE(storage_name(storage));
    for (const size_t count : {size_t{256}, size_t{1000}}) {
      if (!open(storage, count * kBlock)) break;
      const IoBuffer out(pattern(count * kBlock));
      const std::vector<iovec> iov = blocks_of(out);
      std::vector<Probe> probes(count);
      std::vector<IoRequest*> batch;
      for (size_t i = 0; i < count; ++i) {
        probes[i].set(IoOp::kWrite, i * kBlock, {&iov[i], 1});
        batch.push_back(&probes[i].io);
      }
      engine_->submit(batch);
      EXPECT_EQ(engine_->in_flight(), count);
      finish();
      for (const Probe& probe : probes) {
        ASSERT_EQ(probe.completions, 1u);
        ASSERT_EQ(probe.result, static_cast<int32_t>(kBlock));
      }
      if (storage == Storage::kNull) continue;
      EXPECT_TRUE(std::ranges::equal(content(), out.bytes()));
    }
  }
}

struct Chain {
  IoEngine* engine = nullptr;
  IoRequest io;
  int left = 0;
};

TEST_P(IoEngineTest, CompletionMaySubmitTheNext) {
  for (const Storage storage : kAllStorage) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, kBlock)) continue;
    std::array<Chain, 8> chains;
    const IoBuffer buffer(chains.size() * kBlock);
    const std::vector<iovec> blocks = blocks_of(buffer);
    std::vector<IoRequest*> batch;
    for (size_t i = 0; i < chains.size(); ++i) {
      Chain& chain = chains[i];
      chain.engine = engine_.get();
      chain.left = 50;
      chain.io = {.op = IoOp::kRead,
                  .length_bytes = kBlock,
                  .iov = {&blocks[i], 1},
                  .done =
                      [](IoRequest& io, int32_t result) {
                        auto& self = *static_cast<Chain*>(io.owner);
                        EXPECT_EQ(result, static_cast<int32_t>(kBlock));
                        IoRequest* one = &io;
                        if (--self.left > 0) self.engine->submit({&one, 1});
                      },
                  .owner = &chain};
      batch.push_back(&chain.io);
    }
    engine_->submit(batch);
    finish();
    for (const Chain& chain : chains) EXPECT_EQ(chain.left, 0);
  }
}

TEST_P(IoEngineTest, LastCompletionMayDestroyTheEngine) {
  for (const Storage storage : kAllStorage) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, kBlock)) continue;
    const IoBuffer buffer(3 * kBlock);
    const std::vector<iovec> blocks = blocks_of(buffer);
    struct Owner {
      std::unique_ptr<IoEngine>* engine;
      std::array<IoRequest, 3> requests;
    } owner{.engine = &engine_, .requests = {}};
    std::vector<IoRequest*> batch;
    for (IoRequest& request : owner.requests) {
      request = {.op = IoOp::kRead,
                 .length_bytes = kBlock,
                 .iov = {&blocks[batch.size()], 1},
                 .done =
                     [](IoRequest& io, int32_t) {
                       auto& its = *static_cast<Owner*>(io.owner);
                       if ((*its.engine)->in_flight() == 0) its.engine->reset();
                     },
                 .owner = &owner};
      batch.push_back(&request);
    }
    engine_->submit(batch);
    while (engine_ != nullptr) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
}

TEST_P(IoEngineTest, DurableWritesArrive) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, 0)) continue;
    const IoBuffer out(pattern(3 * kBlock));
    const std::array iov = {out.part(0, kBlock), out.part(kBlock, 2 * kBlock)};
    Probe probe;
    probe.set(IoOp::kWrite, kBlock, iov);
    probe.io.fua = true;
    EXPECT_EQ(run(probe), static_cast<int32_t>(3 * kBlock));
    const auto written = content();
    EXPECT_TRUE(std::ranges::equal(std::span(written).subspan(kBlock), out.bytes()));
  }
}

TEST_P(IoEngineTest, FlushSucceedsOnAFileAndFailsWhereThereIsNothingToFlush) {
  for (const Storage storage : kAllStorage) {
    SCOPED_TRACE(storage_name(storage));
    if (!open(storage, kBlock)) continue;
    EXPECT_EQ(run_range(IoOp::kFlush, 0, 0), 0);
  }
  std::array<int, 2> ends = {-1, -1};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const loop::UniqueFd read_end(ends[0]);
  serve_anyway(loop::UniqueFd(ends[1]));
  EXPECT_EQ(run_range(IoOp::kFlush, 0, 0), -EINVAL);
}

TEST_P(IoEngineTest, DiscardAndWriteZeroesLeaveZeroesAndTheSize) {
  for (const Storage storage : kFiles) {
    SCOPED_TRACE(storage_name(storage));
    for (const IoOp op : {IoOp::kDiscard, IoOp::kWriteZeroes}) {
      auto expected = pattern(64 * 1024);
      if (!open(storage, expected)) break;
      const int32_t result = run_range(op, 4096, 60 * 1024);
      // tmpfs knows holes, but no FALLOC_FL_ZERO_RANGE.
      if (storage == Storage::kTmpfs && op == IoOp::kWriteZeroes) {
        EXPECT_EQ(result, -EOPNOTSUPP);
        continue;
      }
      ASSERT_EQ(result, 0);
      std::fill(expected.begin() + 4096, expected.end(), std::byte{0});
      EXPECT_EQ(content(), expected);
    }
  }
}

constexpr auto kEpoll = loop::EventLoop::Backend::kEpoll;
constexpr auto kRing = loop::EventLoop::Backend::kIoUring;
constexpr auto kInterrupt = loop::EventLoop::TaskWork::kInterrupt;

constexpr std::array kEngineCases = {
    EngineCase{"sync_on_epoll", IoEngineKind::kSync, kEpoll},
    EngineCase{"sync_on_a_ring", IoEngineKind::kSync, kRing},
    EngineCase{"worker_on_epoll", IoEngineKind::kWorker, kEpoll},
    EngineCase{"worker_on_a_ring", IoEngineKind::kWorker, kRing},
    EngineCase{"threads_on_epoll", IoEngineKind::kThreads, kEpoll},
    EngineCase{"threads_on_a_ring", IoEngineKind::kThreads, kRing},
    EngineCase{"threads_on_a_vcpu_ring", IoEngineKind::kThreads, kRing, kInterrupt},
    EngineCase{"posix_aio_on_epoll", IoEngineKind::kPosixAio, kEpoll},
    EngineCase{"posix_aio_on_a_ring", IoEngineKind::kPosixAio, kRing},
    EngineCase{"linux_aio_on_epoll", IoEngineKind::kLinuxAio, kEpoll},
    EngineCase{"linux_aio_on_a_ring", IoEngineKind::kLinuxAio, kRing},
    EngineCase{"linux_aio_on_a_vcpu_ring", IoEngineKind::kLinuxAio, kRing, kInterrupt},
    EngineCase{"io_uring", IoEngineKind::kIoUring, kRing},
    EngineCase{"io_uring_on_a_vcpu_ring", IoEngineKind::kIoUring, kRing, kInterrupt},
    EngineCase{"auto_on_epoll", IoEngineKind::kAuto, kEpoll},
    EngineCase{"auto_on_a_ring", IoEngineKind::kAuto, kRing},
    EngineCase{"auto_on_a_vcpu_ring", IoEngineKind::kAuto, kRing, kInterrupt}};

INSTANTIATE_TEST_SUITE_P(Engines, IoEngineTest, ::testing::ValuesIn(kEngineCases),
                         [](const auto& its) { return std::string(its.param.name); });

TEST(MakeIoEngineTest, IoUringWithoutARingIsRefusedWithAReason) {
  auto pool = loop::WorkerPool::create({});
  auto made = loop::EventLoop::create({.backend = kEpoll});
  ASSERT_TRUE(pool && made);
  const auto engine = make_io_engine(IoEngineKind::kIoUring, IoTarget{}, **made, **pool);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().kind(), loop::ErrorKind::kUnsupported);
}

TEST(EngineNameTest, EveryNameIsParsedAsItsKindAndOthersAreNot) {
  for (const IoEngineKind kind : kAllEngineKinds) {
    EXPECT_EQ(parse_engine(engine_name(kind)), kind);
    EXPECT_FALSE(engine_name(kind).empty());
  }
  EXPECT_EQ(parse_engine("native"), std::nullopt);
  EXPECT_EQ(parse_engine(""), std::nullopt);
}

}  // namespace
}  // namespace skiff::block
