// SPDX-License-Identifier: GPL-2.0-or-later
// FakeBackend and FakeChannel: an image in memory whose requests end when the test says so.
//
// Thread: the test's, which is also the channels' home. Ownership: the backend outlives its
// channels.
//
//   FakeBackend image({.sectors = 8});
//   ... the device submits ...
//   image.channel().complete(1);         // The second request that is pending.
//   image.channel().fail(0, -ENOSPC);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/block_channel.h"

namespace skiff::block {

class FakeChannel;

class FakeBackend final : public BlockBackend {
 public:
  enum class Completion : uint8_t {
    kManual,    // complete() and fail().
    kNextTurn,  // All that is pending, last first.
  };
  struct Options {
    uint64_t sectors = 64;
    bool read_only = false;
    Completion completion = Completion::kManual;
    BlockLimits limits = {.discard = true, .write_zeroes = true};
  };

  explicit FakeBackend(const Options& options)
      : options_(options),
        completion_(options.completion),
        bytes_(options.sectors * 512, std::byte{0}) {}

  uint64_t size_bytes() const override { return bytes_.size(); }
  bool is_read_only() const override { return options_.read_only; }
  const BlockLimits& limits() const override { return options_.limits; }
  const std::string& name() const override { return name_; }
  loop::Result<std::unique_ptr<BlockChannel>> open_channel(loop::EventLoop& loop) override;

  void refuse_channels(bool refuse = true) { refuses_ = refuse; }
  void hold() { completion_ = Completion::kManual; }  // From now on.
  std::vector<std::byte>& bytes() { return bytes_; }
  // The one that is open; there must be one.
  FakeChannel& channel();
  bool has_channel() const { return !channels_.empty(); }
  // All that are open, the oldest first.
  const std::vector<FakeChannel*>& channels() const { return channels_; }
  // The only one on this loop; null when there is none.
  FakeChannel* channel_on(const loop::EventLoop& loop) const;
  // Of all channels so far.
  uint32_t submit_calls() const { return submit_calls_; }
  uint32_t requests() const { return requests_; }

 private:
  friend class FakeChannel;
  const Options options_;
  Completion completion_;
  const std::string name_ = "fake";
  std::vector<std::byte> bytes_;
  std::vector<FakeChannel*> channels_;
  bool refuses_ = false;
  uint32_t submit_calls_ = 0;
  uint32_t requests_ = 0;
};

class FakeChannel final : public BlockChannel {
 public:
  FakeChannel(FakeBackend& backend, loop::EventLoop& loop);
  ~FakeChannel() override;

  void submit(std::span<BlockRequest* const> batch) override;
  uint32_t in_flight() const override { return static_cast<uint32_t>(pending_.size()); }

  const loop::EventLoop& home() const { return loop_; }
  const std::vector<BlockRequest*>& pending() const { return pending_; }
  // Does what was asked for, with the contract's checks, and ends the request.
  void complete(size_t index);
  // Ends the request without having done anything.
  void fail(size_t index, int32_t result);

 private:
  int32_t perform(const BlockRequest& request);
  void end(size_t index, int32_t result);

  FakeBackend& backend_;
  const loop::EventLoop& loop_;
  std::vector<BlockRequest*> pending_;
  loop::BottomHalf complete_bh_;
};

}  // namespace skiff::block
