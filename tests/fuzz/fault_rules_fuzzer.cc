// SPDX-License-Identifier: GPL-2.0-or-later
// Fault rules as users write them, and what a channel makes of any that are accepted.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "block/block_channel.h"
#include "block/filters/fault_plan.h"
#include "block/filters/fault_rules.h"
#include "loop/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace skiff::block;
  auto rules = FaultRules::parse({reinterpret_cast<const char*>(data), size});
  if (!rules) {
    SKIFF_CHECK(!rules.error().message().empty());
    return 0;
  }
  FaultPlan plan(*rules);
  FaultDice dice(plan);
  BlockRequest request;
  for (const BlockOp op : {BlockOp::kRead, BlockOp::kWrite, BlockOp::kFlush, BlockOp::kDiscard}) {
    request.op = op;
    for (const uint64_t offset : {uint64_t{0}, uint64_t{1} << 20, ~uint64_t{511}}) {
      request.offset_bytes = offset;
      request.length_bytes = op == BlockOp::kFlush ? 0 : 8192;
      const Fault fault = dice.next(request);
      SKIFF_CHECK(fault.delay_ns >= 0 && fault.result <= 0);
      SKIFF_CHECK(fault.prefix_bytes == 0 || fault.prefix_bytes < request.length_bytes);
    }
  }
  return 0;
}
