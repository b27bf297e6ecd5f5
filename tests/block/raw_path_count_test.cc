// SPDX-License-Identifier: GPL-2.0-or-later
// A program of its own, because it counts every allocation and every lock of the process.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/aligned_buffer.h"
#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/io_engine.h"
#include "block/open_image.h"
#include "loop/event_loop.h"
#include "loop/worker_pool.h"
#include "tests/path_counters.h"
#include "tests/temp_dir.h"

namespace skiff::block {
namespace {

struct Counts {
  uint64_t allocations = 0;
  uint64_t locks = 0;
  uint64_t enters = 0;
};

// Keeps `depth` requests of 4 KiB under way until `total` of them are done.
class Load {
 public:
  Load(BlockChannel& channel, loop::EventLoop& loop, BlockOp op, size_t depth)
      : channel_(channel), loop_(loop), memory_(depth * kBytes, 4096), requests_(depth) {
    batch_.reserve(depth);
    again_.reserve(depth);
    for (size_t i = 0; i < depth; ++i) {
      Slot& slot = requests_[i];
      slot.load = this;
      slot.iov = {memory_.data() + i * kBytes, kBytes};
      slot.request = {.op = op,
                      .length_bytes = kBytes,
                      .iov = {&slot.iov, 1},
                      .done = &Load::on_done,
                      .owner = &slot};
    }
  }
  Counts run(uint64_t total) {
    const Counts before = now();
    left_ = total;
    std::vector<BlockRequest*>& batch = batch_;
    batch.clear();
    for (Slot& slot : requests_) batch.push_back(next(slot));
    channel_.submit(batch);
    while (channel_.in_flight() > 0) {
      loop_.run_once(loop::EventLoop::Wait::kUntilEvent);
      // As a queue does it: what the turn's completions made room for goes together.
      if (again_.empty()) continue;
      batch.swap(again_);
      again_.clear();
      channel_.submit(batch);
    }
    const Counts after = now();
    return {after.allocations - before.allocations, after.locks - before.locks,
            after.enters - before.enters};
  }

 private:
  static constexpr size_t kBytes = 4096;
  static constexpr uint64_t kImageBytes = uint64_t{16} << 20;
  struct Slot {
    Load* load = nullptr;
    iovec iov = {};
    BlockRequest request;
  };

  Counts now() const {
    return {counted_allocations.load(), counted_locks.load(), loop_.counters().enters};
  }
  BlockRequest* next(Slot& slot) {
    --left_;
    slot.request.offset_bytes = (sequence_++ * 7919 * kBytes) % kImageBytes;
    return &slot.request;
  }
  static void on_done(BlockRequest& request, int32_t result) {
    Slot& slot = *static_cast<Slot*>(request.owner);
    EXPECT_EQ(result, 0);
    if (slot.load->left_ > 0) slot.load->again_.push_back(slot.load->next(slot));
  }

  BlockChannel& channel_;
  loop::EventLoop& loop_;
  AlignedBuffer memory_;
  std::vector<Slot> requests_;
  std::vector<BlockRequest*> batch_;
  std::vector<BlockRequest*> again_;
  uint64_t left_ = 0;
  uint64_t sequence_ = 0;
};

class RawPathCountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pool = loop::WorkerPool::create({});
    ASSERT_TRUE(pool);
    pool_ = *std::move(pool);
  }
  // Null, the reason said, where the loop cannot have a ring.
  std::unique_ptr<loop::EventLoop> make_loop(loop::EventLoop::Backend backend) {
    auto made = loop::EventLoop::create({.backend = backend});
    return made ? *std::move(made) : nullptr;
  }
  std::unique_ptr<BlockBackend> open(const std::string& path, IoEngineKind engine,
                                     DirectIo direct = DirectIo::kOn) {
    ImageOptions options;
    options.path = path;
    options.format = ImageFormat::kRaw;
    options.direct = direct;
    options.engine = engine;
    auto image = open_image(options, *pool_);
    EXPECT_TRUE(image) << image.error().message();
    return image ? *std::move(image) : nullptr;
  }
  std::string make_file() { return dir_.make_file("disk", pattern(size_t{16} << 20)); }

  TempDir dir_;
  std::unique_ptr<loop::WorkerPool> pool_;
};

struct PathCase {
  IoEngineKind engine;
  bool null;
};

TEST_F(RawPathCountTest, RequestsAllocateNothingAndLockNothing) {
  const std::string file = make_file();
  for (const PathCase& its :
       {PathCase{IoEngineKind::kIoUring, false}, PathCase{IoEngineKind::kLinuxAio, false},
        PathCase{IoEngineKind::kSync, false}, PathCase{IoEngineKind::kAuto, false},
        PathCase{IoEngineKind::kIoUring, true}, PathCase{IoEngineKind::kSync, true},
        PathCase{IoEngineKind::kAuto, true}}) {
    for (const BlockOp op : {BlockOp::kRead, BlockOp::kWrite}) {
      SCOPED_TRACE(std::string(engine_name(its.engine)) + (its.null ? " on null" : ""));
      auto loop = make_loop(loop::EventLoop::Backend::kIoUring);
      if (loop == nullptr) GTEST_SKIP() << "REFUSED BY THIS KERNEL: io_uring";
      const auto image = open(its.null ? "null:size=16M" : file, its.engine);
      auto channel = image->open_channel(*loop);
      ASSERT_TRUE(channel) << channel.error().message();
      Load load(**channel, *loop, op, 32);
      load.run(2'000);  // What grows has grown.
      const Counts counts = load.run(4'000);
      // A request that had to go to the pool (the file's time stamps, a lock taken) takes a lock,
      // and allocates nothing; there are few.
      EXPECT_EQ(counts.allocations, 0u);
      const bool may_need_pool =
          !its.null && (its.engine == IoEngineKind::kLinuxAio || its.engine == IoEngineKind::kAuto);
      EXPECT_LE(counts.locks, may_need_pool ? 400u : 0u);
      channel->reset();
    }
  }
}

TEST_F(RawPathCountTest, IoUringNeedsOneSystemCallForARequestAloneAndFarFewerInBatches) {
  const std::string file = make_file();
  auto loop = make_loop(loop::EventLoop::Backend::kIoUring);
  if (loop == nullptr) GTEST_SKIP() << "REFUSED BY THIS KERNEL: io_uring";
  constexpr uint64_t kRequests = 4'000;
  const auto count = [&](DirectIo direct, size_t depth) {
    const auto image = open(file, IoEngineKind::kIoUring, direct);
    auto channel = image->open_channel(*loop);
    EXPECT_TRUE(channel);
    const Counts counts = Load(**channel, *loop, BlockOp::kRead, depth).run(kRequests);
    channel->reset();
    return static_cast<double>(counts.enters) / kRequests;
  };
  EXPECT_LE(count(DirectIo::kOn, 1), 1.05);
  // From the page cache: how many end together is not the device's choice then.
  EXPECT_LE(count(DirectIo::kOff, 1), 1.05);
  EXPECT_LE(count(DirectIo::kOff, 32), 0.1);
}

TEST_F(RawPathCountTest, CountersCount) {
  auto loop = make_loop(loop::EventLoop::Backend::kEpoll);
  const auto image = open(make_file(), IoEngineKind::kThreads);
  const Counts before = {counted_allocations.load(), counted_locks.load(), 0};
  auto channel = image->open_channel(*loop);
  ASSERT_TRUE(channel);
  EXPECT_GT(counted_allocations.load(), before.allocations);
  const Counts counts = Load(**channel, *loop, BlockOp::kRead, 4).run(100);
  EXPECT_GE(counts.locks, 100u);
  channel->reset();
}

}  // namespace
}  // namespace skiff::block
