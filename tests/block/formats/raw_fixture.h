// SPDX-License-Identifier: GPL-2.0-or-later
// What the tests of raw images share: an image in a directory of its own with an open channel, and
// an engine whose results the test makes up.
//
// Thread: the test's.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/file_device.h"
#include "block/formats/raw_channel.h"
#include "block/formats/raw_image.h"
#include "block/io_engine.h"
#include "loop/event_loop.h"
#include "loop/worker_pool.h"
#include "tests/block/block_probe.h"
#include "tests/temp_dir.h"

namespace skiff::block {

inline constexpr uint64_t kDiskBytes = 1 << 20;

class RawChannelTest : public ::testing::Test {
 protected:
  RawChannelTest() {
    pool_ = *loop::WorkerPool::create({});
    loop_ = *loop::EventLoop::create();
  }
  ~RawChannelTest() override { channel_.reset(); }

  void open(const FileDevice::Options& options, IoEngineKind engine = IoEngineKind::kAuto) {
    auto file = FileDevice::open(options);
    ASSERT_TRUE(file) << file.error().message();
    image_ = std::make_unique<RawImage>(*std::move(file), engine, *pool_);
    auto channel = image_->open_channel(*loop_);
    ASSERT_TRUE(channel) << channel.error().message();
    channel_ = *std::move(channel);
  }
  void open() { open({.path = dir_.make_sparse("disk.img", kDiskBytes)}); }

  void submit(Probe& probe) {
    BlockRequest* one = &probe.request;
    channel_->submit({&one, 1});
    EXPECT_EQ(probe.completions, 0u) << "completed inside submit()";
  }
  void finish() {
    while (channel_->in_flight() > 0) loop_->run_once(loop::EventLoop::Wait::kUntilEvent);
  }
  int32_t run(Probe& probe) {
    submit(probe);
    finish();
    EXPECT_EQ(probe.completions, 1u);
    return probe.result;
  }
  int32_t run(BlockOp op, uint64_t offset_bytes, std::span<std::byte> bytes) {
    Probe probe(op, offset_bytes, bytes);
    return run(probe);
  }
  int32_t run_range(BlockOp op, uint64_t offset_bytes, uint64_t length_bytes) {
    Probe probe(op, offset_bytes, length_bytes);
    return run(probe);
  }

  TempDir dir_;
  // The pool goes before the loop: a worker may still be on its way out of post().
  std::unique_ptr<loop::EventLoop> loop_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<RawImage> image_;
  std::unique_ptr<BlockChannel> channel_;
};

// An engine whose results the test makes up.
class ScriptedEngine final : public IoEngine {
 public:
  std::string_view name() const override { return "scripted"; }
  void submit(std::span<IoRequest* const> batch) override {
    pending.insert(pending.end(), batch.begin(), batch.end());
    submitted += batch.size();
  }
  uint32_t in_flight() const override { return static_cast<uint32_t>(pending.size()); }
  void complete(int32_t result) {
    IoRequest* io = pending.front();
    pending.erase(pending.begin());
    io->done(*io, result);
  }
  std::vector<IoRequest*> pending;
  size_t submitted = 0;
};

class RawChannelErrorTest : public RawChannelTest {
 protected:
  RawChannelErrorTest() {
    auto file = FileDevice::open({.path = dir_.make_sparse("disk.img", kDiskBytes)});
    image_ = std::make_unique<RawImage>(*std::move(file), IoEngineKind::kAuto, *pool_);
    auto engine = std::make_unique<ScriptedEngine>();
    engine_ = engine.get();
    channel_ = std::make_unique<RawChannel>(*image_, *loop_, std::move(engine));
  }
  ScriptedEngine* engine_;
};

}  // namespace skiff::block
