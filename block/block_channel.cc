// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/block_channel.h"

#include <spdlog/fmt/fmt.h>

#include <cerrno>
#include <cstdint>
#include <optional>

#include "block/block_limits.h"
#include "block/filters/fault_rules.h"
#include "loop/result.h"

namespace skiff::block {

// NOLINTNEXTLINE(performance-unnecessary-value-param): an image that injects them keeps them.
loop::Result<void> BlockBackend::set_faults(FaultRules /*rules*/) {
  return loop::Error(
      loop::ErrorKind::kUnsupported,
      fmt::format("Disk {} was not started with fault=RULES, which may be empty", name()));
}

loop::Result<void> BlockBackend::resize(std::optional<uint64_t> /*size_bytes*/) {
  return loop::Error(loop::ErrorKind::kUnsupported,
                     fmt::format("Disk {} cannot change its size", name()));
}

int32_t check_range(const BlockRequest& request, uint64_t size_bytes) {
  if (request.offset_bytes % kSectorBytes != 0 || request.length_bytes % kSectorBytes != 0)
    return -EINVAL;
  // In this order nothing wraps.
  if (request.offset_bytes > size_bytes) return -EINVAL;
  if (request.length_bytes > size_bytes - request.offset_bytes) return -EINVAL;
  if (is_transfer(request.op) && request.length_bytes > kMaxTransferBytes) return -EINVAL;
  return 0;
}

}  // namespace skiff::block
