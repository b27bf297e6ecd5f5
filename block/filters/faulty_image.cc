// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/filters/faulty_image.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "block/block_channel.h"
#include "block/filters/fault_plan.h"
#include "block/filters/fault_rules.h"
#include "block/filters/held_requests.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/home.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

class FaultyChannel final : public BlockChannel {
 public:
  FaultyChannel(FaultPlan& plan, loop::EventLoop& loop, std::unique_ptr<BlockChannel> below)
      : home_(loop),
        dice_(plan),
        below_(std::move(below)),
        held_(loop, [this](std::span<const HeldRequest> due) { release(due); }) {}
  ~FaultyChannel() override { SKIFF_CHECK(tearing_ == 0); }

  void submit(std::span<BlockRequest* const> batch) override {
    home_.assert_here();
    if (dice_.is_idle()) return below_->submit(batch);
    std::vector<BlockRequest*> untouched;
    for (BlockRequest* request : batch) {
      const Fault fault = dice_.next(*request);
      if (fault.delay_ns == 0 && fault.result == 0) {
        untouched.push_back(request);
        continue;
      }
      // Also what fails at once: no completion inside submit().
      held_.hold({.request = request,
                  .due_ns = home_.loop().now_ns() + fault.delay_ns,
                  .result = fault.result,
                  .prefix_bytes = fault.prefix_bytes});
    }
    if (!untouched.empty()) below_->submit(untouched);
  }

  // What is torn is counted by the channel below, as the prefix.
  uint32_t in_flight() const override { return below_->in_flight() + held_.size() + releasing_; }
  void hurry() override {
    held_.release_all();
    below_->hurry();
  }
  const AdaptiveCounters* adaptive_counters() const override { return below_->adaptive_counters(); }

 private:
  // A write of which only the beginning reaches the disk. Allocated: such a write is rare.
  struct TornWrite {
    FaultyChannel* channel;
    BlockRequest* whole;
    int32_t result;
    std::vector<iovec> iov;
    BlockRequest prefix;
  };

  void release(std::span<const HeldRequest> due) {
    home_.assert_here();
    releasing_ = static_cast<uint32_t>(due.size());
    for (const HeldRequest& held : due) {
      --releasing_;
      BlockRequest* request = held.request;
      if (held.result == 0)
        below_->submit({&request, 1});
      else if (held.prefix_bytes > 0)
        tear(held);
      else
        request->done(*request, held.result);
    }
  }

  void tear(const HeldRequest& held) {
    const BlockRequest& whole = *held.request;
    auto torn = std::make_unique<TornWrite>();
    torn->channel = this;
    torn->whole = held.request;
    torn->result = held.result;
    torn->prefix.op = whole.op;
    torn->prefix.may_unmap = whole.may_unmap;
    torn->prefix.fua = whole.fua;
    torn->prefix.offset_bytes = whole.offset_bytes;
    torn->prefix.length_bytes = held.prefix_bytes;
    uint64_t left_bytes = whole.op == BlockOp::kWrite ? held.prefix_bytes : 0;
    for (const iovec& segment : whole.iov) {
      if (left_bytes == 0) break;
      torn->iov.push_back({segment.iov_base, std::min<uint64_t>(segment.iov_len, left_bytes)});
      left_bytes -= torn->iov.back().iov_len;
    }
    torn->prefix.iov = torn->iov;
    torn->prefix.owner = torn.get();
    torn->prefix.done = &FaultyChannel::on_prefix_done;
    BlockRequest* one = &torn.release()->prefix;
    ++tearing_;
    below_->submit({&one, 1});
  }

  static void on_prefix_done(BlockRequest& prefix, int32_t /*result*/) {
    const std::unique_ptr<TornWrite> torn(static_cast<TornWrite*>(prefix.owner));
    --torn->channel->tearing_;
    torn->whole->done(*torn->whole, torn->result);
  }

  loop::Home home_;
  FaultDice dice_;
  std::unique_ptr<BlockChannel> below_;
  HeldRequests held_;
  uint32_t releasing_ = 0;  // Of the batch that is being released, those still to come.
  uint32_t tearing_ = 0;
};

}  // namespace

loop::Result<std::unique_ptr<BlockChannel>> FaultyImage::open_channel(loop::EventLoop& loop) {
  auto below = this->below().open_channel(loop);
  if (!below) return below.error();
  return std::unique_ptr<BlockChannel>(
      std::make_unique<FaultyChannel>(*plan_, loop, *std::move(below)));
}

loop::Result<void> FaultyImage::set_faults(FaultRules rules) {
  plan_->set(std::move(rules));
  return {};
}

}  // namespace skiff::block
