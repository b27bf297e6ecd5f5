// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/formats/zero_fill.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "block/block_channel.h"
#include "block/formats/raw_channel.h"

namespace skiff::block {
namespace {

// Shared by all; nobody writes to it, but as a constant it would be in the program's file.
alignas(4096) constinit std::array<std::byte, 64 * 1024> zeroes = {};

}  // namespace

void ZeroFill::start(RawChannel& channel, BlockRequest& request) {
  // Owns itself: a request has no room for what only this path needs. on_part_done() deletes.
  auto* fill = new ZeroFill(channel, request);
  fill->next_part();
}

ZeroFill::ZeroFill(RawChannel& channel, BlockRequest& request)
    : channel_(channel), request_(request) {
  part_.op = BlockOp::kWrite;
  part_.done = &ZeroFill::on_part_done;
  part_.owner = this;
}

void ZeroFill::next_part() {
  uint64_t left_bytes =
      std::min<uint64_t>(request_.length_bytes - done_bytes_, kSegments * zeroes.size());
  part_.offset_bytes = request_.offset_bytes + done_bytes_;
  part_.length_bytes = left_bytes;
  size_t segments = 0;
  for (; left_bytes > 0; ++segments) {
    iov_[segments] = {.iov_base = zeroes.data(),
                      .iov_len = std::min<uint64_t>(left_bytes, zeroes.size())};
    left_bytes -= iov_[segments].iov_len;
  }
  part_.iov = std::span(iov_).first(segments);
  BlockRequest* one = &part_;
  channel_.submit({&one, 1});
}

void ZeroFill::on_part_done(BlockRequest& part, int32_t result) {
  auto* fill = static_cast<ZeroFill*>(part.owner);
  fill->done_bytes_ += part.length_bytes;
  if (result == 0 && fill->done_bytes_ < fill->request_.length_bytes) return fill->next_part();
  const std::unique_ptr<ZeroFill> self(fill);
  // finish() would try zeroes again if a write told it that it is not supported.
  self->channel_.finish(self->request_, result == -EOPNOTSUPP ? -EIO : result);
}

}  // namespace skiff::block
