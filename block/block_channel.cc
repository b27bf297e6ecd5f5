// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/block_channel.h"

#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <optional>

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

}  // namespace skiff::block
