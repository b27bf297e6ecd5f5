// SPDX-License-Identifier: GPL-2.0-or-later
// ThrottledImage: an image that takes no more requests and bytes a second than it is allowed.
//
// The limits are the image's, whatever number of channels use it. A request that has to wait counts
// as in flight; hurry() lets it go at once, so that nobody who drains waits for a rate. Flushes and
// discards are requests without bytes, block status is free. Thread: as BlockBackend. Ownership:
// owns the image below.
#pragma once

#include <cstdint>
#include <memory>

#include "block/block_channel.h"
#include "block/filters/filter_image.h"
#include "block/filters/token_bucket.h"

namespace skiff::block {

// A second; 0: no limit.
struct ThrottleLimits {
  struct Rates {
    uint64_t total = 0;
    uint64_t read = 0;
    uint64_t write = 0;  // Everything that is not a read.
    uint64_t burst = 0;  // At once after a pause; 0: a hundredth of a second's worth.
    bool any() const { return (total | read | write) != 0; }
  };
  Rates requests;
  Rates bytes;

  bool any() const { return requests.any() || bytes.any(); }
};

class ThrottledImage final : public FilterImage {
 public:
  ThrottledImage(const ThrottleLimits& limits, std::unique_ptr<BlockBackend> below);

  loop::Result<std::unique_ptr<BlockChannel>> open_channel(loop::EventLoop& loop) override;

  // When the request may go. Thread: any.
  int64_t due_ns(const BlockRequest& request, int64_t now_ns);

 private:
  struct Buckets {
    TokenBucket total;
    TokenBucket read;
    TokenBucket write;
    void set(const ThrottleLimits::Rates& rates);
    int64_t take(bool is_read, uint64_t units, int64_t now_ns);
  };

  Buckets requests_;
  Buckets bytes_;
};

}  // namespace skiff::block
