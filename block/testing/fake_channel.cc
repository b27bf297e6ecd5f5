// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/testing/fake_channel.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "block/block_channel.h"
#include "block/iovec_copy.h"
#include "loop/check.h"
#include "loop/event_loop.h"
#include "loop/result.h"

namespace skiff::block {

loop::Result<std::unique_ptr<BlockChannel>> FakeBackend::open_channel(loop::EventLoop& loop) {
  if (refuses_) return loop::Error(loop::ErrorKind::kIo, "The fake image refuses channels");
  return std::unique_ptr<BlockChannel>(std::make_unique<FakeChannel>(*this, loop));
}

FakeChannel& FakeBackend::channel() {
  SKIFF_CHECK(channels_.size() == 1);
  return *channels_.front();
}

FakeChannel* FakeBackend::channel_on(const loop::EventLoop& loop) const {
  FakeChannel* found = nullptr;
  for (FakeChannel* channel : channels_) {
    if (&channel->home() != &loop) continue;
    SKIFF_CHECK(found == nullptr);
    found = channel;
  }
  return found;
}

FakeChannel::FakeChannel(FakeBackend& backend, loop::EventLoop& loop)
    : backend_(backend), loop_(loop), complete_bh_(loop, loop::Priority::kCompletion, [this] {
        for (size_t left = pending_.size(); left > 0; --left) complete(left - 1);
      }) {
  backend_.channels_.push_back(this);
}

FakeChannel::~FakeChannel() {
  SKIFF_CHECK(pending_.empty());
  std::erase(backend_.channels_, this);
}

void FakeChannel::submit(std::span<BlockRequest* const> batch) {
  ++backend_.submit_calls_;
  backend_.requests_ += static_cast<uint32_t>(batch.size());
  pending_.insert(pending_.end(), batch.begin(), batch.end());
  if (backend_.completion_ == FakeBackend::Completion::kNextTurn) complete_bh_.schedule();
}

void FakeChannel::complete(size_t index) { end(index, perform(*pending_.at(index))); }

void FakeChannel::fail(size_t index, int32_t result) { end(index, result); }

int32_t FakeChannel::perform(const BlockRequest& request) {
  if (request.op == BlockOp::kFlush) return 0;
  if (request.op == BlockOp::kStatus) return -EOPNOTSUPP;
  if (request.op != BlockOp::kRead && backend_.is_read_only()) return -EROFS;
  const uint64_t size_bytes = backend_.size_bytes();
  if (request.offset_bytes > size_bytes || request.length_bytes > size_bytes - request.offset_bytes)
    return -EINVAL;
  const auto range = std::span(backend_.bytes_).subspan(request.offset_bytes, request.length_bytes);
  if (request.op == BlockOp::kRead)
    copy_to_iovec(request.iov, 0, range);
  else if (request.op == BlockOp::kWrite)
    copy_from_iovec(request.iov, 0, range);
  else
    std::ranges::fill(range, std::byte{0});
  return 0;
}

void FakeChannel::end(size_t index, int32_t result) {
  BlockRequest& request = *pending_.at(index);
  pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(index));
  request.done(request, result);
}

}  // namespace skiff::block
