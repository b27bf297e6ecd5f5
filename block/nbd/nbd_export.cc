// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/nbd/nbd_export.h"

#include <libnbd.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "block/block_limits.h"
#include "block/nbd/nbd_handle.h"
#include "loop/result.h"

namespace skiff::block {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

// NBD protocol, "Block size constraints": what a server takes that says nothing.
constexpr uint64_t kTransferBytesDefault = uint64_t{32} << 20;
constexpr uint32_t kPreferredBlockBytesMax = 65536;

Result<void> learn_blocks(nbd_handle* handle, NbdExport& facts) {
  const int64_t minimum = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  const int64_t preferred = nbd_get_block_size(handle, LIBNBD_SIZE_PREFERRED);
  const int64_t maximum = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  if (minimum < 0 || preferred < 0 || maximum < 0) return nbd_error("Asking for block sizes");
  if (minimum > 512 || (minimum > 0 && !std::has_single_bit(static_cast<uint64_t>(minimum)))) {
    return Error(ErrorKind::kUnsupported,
                 fmt::format("The server wants requests in blocks of {} bytes, and a disk's are "
                             "512; put something between that does both, such as nbdkit "
                             "--filter=blocksize",
                             minimum));
  }
  facts.transfer_bytes_max = kTransferBytesDefault;
  if (maximum > 0) {
    facts.transfer_bytes_max =
        std::min(static_cast<uint64_t>(maximum), kTransferBytesDefault) / kSectorBytes * 512;
  }
  if (facts.transfer_bytes_max == 0) {
    return Error(
        ErrorKind::kUnsupported,
        fmt::format("The server takes at most {} bytes at once, not even a sector", maximum));
  }
  const auto wish = static_cast<uint64_t>(preferred);
  if (wish > kSectorBytes && wish <= kPreferredBlockBytesMax && std::has_single_bit(wish))
    facts.preferred_block_bytes = static_cast<uint32_t>(wish);
  return {};
}

}  // namespace

Result<NbdExport> NbdExport::learn(nbd_handle* handle) {
  NbdExport facts;
  const int64_t size_bytes = nbd_get_size(handle);
  if (size_bytes < 0) {
    return Error(ErrorKind::kCorrupt, nbd_error("The server tells no believable size").message());
  }
  facts.size_bytes = static_cast<uint64_t>(size_bytes) / kSectorBytes * kSectorBytes;
  if (facts.size_bytes == 0) {
    return Error(
        ErrorKind::kCorrupt,
        fmt::format("The server says that the disk has {} bytes, less than a sector", size_bytes));
  }
  // -1 would be a question asked too early; it is none of these.
  facts.read_only = nbd_is_read_only(handle) > 0;
  facts.flush = nbd_can_flush(handle) > 0;
  facts.fua = nbd_can_fua(handle) > 0;
  facts.trim = nbd_can_trim(handle) > 0;
  facts.zero = nbd_can_zero(handle) > 0;
  facts.fast_zero = nbd_can_fast_zero(handle) > 0;
  facts.multi_conn = nbd_can_multi_conn(handle) > 0;
  facts.allocation = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
  SKIFF_RETURN_IF_ERROR(learn_blocks(handle, facts));
  return facts;
}

Result<void> NbdExport::can_stand_in_for(const NbdExport& promised) const {
  const auto refuse = [](std::string_view why) {
    return Error(ErrorKind::kCorrupt,
                 fmt::format("The server came back with another disk: {}", why));
  };
  if (size_bytes < promised.size_bytes)
    return refuse(fmt::format("{} bytes instead of {}", size_bytes, promised.size_bytes));
  if (read_only && !promised.read_only) return refuse("it is read-only now");
  if (promised.flush && !flush) return refuse("it cannot flush any more");
  if (promised.fua && !fua) return refuse("it has no FUA writes any more");
  if (promised.trim && !trim) return refuse("it cannot discard any more");
  if (promised.zero && !zero) return refuse("it cannot write zeroes any more");
  if (promised.fast_zero && !fast_zero) return refuse("it has no fast zeroes any more");
  if (promised.allocation && !allocation) return refuse("it answers no block status any more");
  if (transfer_bytes_max < promised.transfer_bytes_max)
    return refuse(fmt::format("it takes only {} bytes at once", transfer_bytes_max));
  return {};
}

BlockLimits NbdExport::limits() const {
  return {.alignment_bytes = 512,
          .memory_alignment_bytes = 1,
          .physical_block_bytes = preferred_block_bytes,
          .discard = trim && !read_only,
          .write_zeroes = zero && !read_only};
}

}  // namespace skiff::block
