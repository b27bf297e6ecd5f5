// SPDX-License-Identifier: GPL-2.0-or-later
#include "block/block_channel.h"

#include <spdlog/fmt/fmt.h>

#include "block/filters/fault_rules.h"
#include "loop/result.h"

namespace skiff::block {

loop::Result<void> BlockBackend::set_faults(FaultRules /*rules*/) {
  return loop::Error(
      loop::ErrorKind::kUnsupported,
      fmt::format("Disk {} was not started with fault=RULES, which may be empty", name()));
}

}  // namespace skiff::block
