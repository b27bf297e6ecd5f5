// SPDX-License-Identifier: GPL-2.0-or-later
// What the tests of filters share: a fake image below, time that is made by hand, and requests that
// remember how and when they ended.
//
// Thread: the test's.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/testing/fake_channel.h"
#include "loop/testing/manual_loop.h"

namespace skiff::block {

class FilterFixture : public ::testing::Test {
 protected:
  struct Sent {
    BlockRequest request;
    std::vector<std::byte> bytes;
    iovec iov = {};
    FilterFixture* test = nullptr;
    bool ended = false;
    int32_t result = 1;
    int64_t ended_ns = 0;
  };

  // Below: 64 sectors that answer in the next turn.
  std::unique_ptr<FakeBackend> make_below(
      FakeBackend::Completion completion = FakeBackend::Completion::kNextTurn) {
    auto below = std::make_unique<FakeBackend>(
        FakeBackend::Options{.sectors = 64, .completion = completion});
    below_ = below.get();
    return below;
  }
  Sent& send(BlockOp op, uint64_t offset_bytes, size_t length_bytes, std::byte fill = {}) {
    Sent& sent = make(op, offset_bytes, length_bytes, fill);
    BlockRequest* one = &sent.request;
    channel_->submit({&one, 1});
    EXPECT_FALSE(sent.ended) << "completed inside submit()";
    return sent;
  }
  Sent& make(BlockOp op, uint64_t offset_bytes, size_t length_bytes, std::byte fill = {}) {
    Sent& sent = sent_.emplace_back();
    sent.test = this;
    sent.bytes.assign(length_bytes, fill);
    sent.iov = {sent.bytes.data(), length_bytes};
    sent.request.op = op;
    sent.request.offset_bytes = offset_bytes;
    sent.request.length_bytes = length_bytes;
    if (op == BlockOp::kRead || op == BlockOp::kWrite) sent.request.iov = {&sent.iov, 1};
    sent.request.owner = &sent;
    sent.request.done = [](BlockRequest& request, int32_t result) {
      auto& ended = *static_cast<Sent*>(request.owner);
      EXPECT_FALSE(ended.ended);
      ended.ended = true;
      ended.result = result;
      ended.ended_ns = ended.test->loop_.loop().now_ns();
      if (ended.test->on_done) ended.test->on_done(ended);
    };
    return sent;
  }
  int32_t run(BlockOp op, uint64_t offset_bytes, size_t length_bytes, std::byte fill = {}) {
    Sent& sent = send(op, offset_bytes, length_bytes, fill);
    loop_.run_until_idle();
    EXPECT_TRUE(sent.ended);
    return sent.result;
  }
  std::byte disk(uint64_t sector) { return below_->bytes()[sector * 512]; }

  loop::ManualLoop loop_;
  std::unique_ptr<BlockBackend> image_;
  std::unique_ptr<BlockChannel> channel_;
  FakeBackend* below_ = nullptr;
  std::deque<Sent> sent_;  // Stay where they are.
  void (*on_done)(Sent& sent) = nullptr;
};

}  // namespace skiff::block
