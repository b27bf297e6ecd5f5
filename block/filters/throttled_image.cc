// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/throttled_image.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/filters/filter_image.h"
#include "block/filters/held_requests.h"
#include "block/filters/token_bucket.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"
#include "loop/thread_annotations.h"

namespace skiff::block {
namespace {

class ThrottledChannel final : public BlockChannel {
 public:
  ThrottledChannel(ThrottledImage& image, loop::EventLoop& loop,
                   std::unique_ptr<BlockChannel> below)
      : home_(loop),
        image_(image),
        below_(std::move(below)),
        held_(loop, [this](std::span<const HeldRequest> due) { release(due); }) {}

  void submit(std::span<BlockRequest* const> batch) override {
    home_.assert_here();
    const int64_t now_ns = home_.loop().now_ns();
    for (BlockRequest* request : batch) {
      const int64_t due_ns = image_.due_ns(*request, now_ns);
      // Behind those whose time has come and whose timer has not.
      if (due_ns <= now_ns && held_.size() == 0)
        ready_.push_back(request);
      else
        held_.hold({.request = request, .due_ns = due_ns});
    }
    send();
  }

  uint32_t in_flight() const override { return below_->in_flight() + held_.size(); }
  void hurry() override {
    held_.release_all();
    below_->hurry();
  }
  const AdaptiveCounters* adaptive_counters() const override { return below_->adaptive_counters(); }

 private:
  void release(std::span<const HeldRequest> due) {
    home_.assert_here();
    for (const HeldRequest& held : due) ready_.push_back(held.request);
    send();
  }
  void send() SKIFF_REQUIRES(home_) {
    if (ready_.empty()) return;
    below_->submit(ready_);
    ready_.clear();
  }

  loop::Home home_;
  ThrottledImage& image_;
  std::unique_ptr<BlockChannel> below_;
  std::vector<BlockRequest*> ready_ SKIFF_GUARDED_BY(home_);
  HeldRequests held_;
};

uint64_t bytes_of(const BlockRequest& request) {
  const bool moves = request.op == BlockOp::kRead || request.op == BlockOp::kWrite ||
                     request.op == BlockOp::kWriteZeroes;
  return moves ? request.length_bytes : 0;
}

}  // namespace

ThrottledImage::ThrottledImage(const ThrottleLimits& limits, std::unique_ptr<BlockBackend> below)
    : FilterImage(std::move(below)) {
  requests_.set(limits.requests);
  bytes_.set(limits.bytes);
}

void ThrottledImage::Buckets::set(const ThrottleLimits::Rates& rates) {
  total.set(rates.total, rates.burst);
  read.set(rates.read, rates.burst);
  write.set(rates.write, rates.burst);
}

int64_t ThrottledImage::Buckets::take(bool is_read, uint64_t units, int64_t now_ns) {
  int64_t due_ns = 0;
  TokenBucket& direction = is_read ? read : write;
  for (TokenBucket* bucket : {&total, &direction})
    if (bucket->is_limiting()) due_ns = std::max(due_ns, bucket->take(units, now_ns));
  return due_ns;
}

int64_t ThrottledImage::due_ns(const BlockRequest& request, int64_t now_ns) {
  if (request.op == BlockOp::kStatus) return now_ns;
  const bool is_read = request.op == BlockOp::kRead;
  return std::max(requests_.take(is_read, 1, now_ns),
                  bytes_.take(is_read, bytes_of(request), now_ns));
}

loop::Result<std::unique_ptr<BlockChannel>> ThrottledImage::open_channel(loop::EventLoop& loop) {
  auto below = this->below().open_channel(loop);
  if (!below) return below.error();
  return std::unique_ptr<BlockChannel>(
      std::make_unique<ThrottledChannel>(*this, loop, *std::move(below)));
}

}  // namespace skiff::block
