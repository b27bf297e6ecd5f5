// SPDX-License-Identifier: GPL-2.0-or-later
// NbdFixture: an NBD image, a channel of it on the test's loop, and requests one by one.
//
// Thread: the test's. Ownership: as named.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/nbd/nbd_channel.h"
#include "block/nbd/nbd_image.h"
#include "loop/event_loop.h"
#include "loop/result.h"
#include "loop/worker_pool.h"
#include "tests/block/block_probe.h"
#include "tests/temp_dir.h"

namespace skiff::block {

class NbdFixture : public ::testing::Test {
 protected:
  NbdFixture() {
    loop_ = *loop::EventLoop::create();
    pool_ = *loop::WorkerPool::create({});
  }
  ~NbdFixture() override {
    channel_.reset();
    image_.reset();
  }

  static NbdImage::Options options(const std::string& url) {
    NbdImage::Options options;
    options.url = url;
    return options;
  }
  void open(const NbdImage::Options& options) {
    auto image = NbdImage::open(options, *pool_);
    ASSERT_TRUE(image) << image.error().message();
    image_ = *std::move(image);
    auto channel = image_->open_channel(*loop_);
    ASSERT_TRUE(channel);
    channel_ = *std::move(channel);
  }
  void open(const std::string& url) { open(options(url)); }
  loop::Error refusal(const NbdImage::Options& options) {
    auto image = NbdImage::open(options, *pool_);
    EXPECT_FALSE(image) << "opened";
    return image ? loop::Error(loop::ErrorKind::kIo, "") : image.error();
  }
  loop::Error refusal(const std::string& url) { return refusal(options(url)); }

  void submit(Probe& probe) {
    BlockRequest* one = &probe.request;
    channel_->submit({&one, 1});
    EXPECT_EQ(probe.completions, 0u) << "completed inside submit()";
  }
  void turn() { loop_->run_once(loop::EventLoop::Wait::kUntilEvent); }
  void finish() {
    while (channel_->in_flight() > 0) turn();
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
  int32_t flush() { return run_range(BlockOp::kFlush, 0, 0); }
  bool has_own_connection() {
    return static_cast<NbdChannel*>(channel_.get())->has_own_connection();
  }
  void wait_for_own_connection() {
    while (!has_own_connection()) turn();
  }

  TempDir dir_;
  std::unique_ptr<loop::EventLoop> loop_;
  std::unique_ptr<loop::WorkerPool> pool_;
  std::unique_ptr<NbdImage> image_;
  std::unique_ptr<BlockChannel> channel_;
};

}  // namespace skiff::block
