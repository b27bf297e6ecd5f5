// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/driver_options.h"

#include <cstdint>

#include "loop/result.h"
#include "vmm/bench/bench_words.h"
#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/driver/blk_table.h"

namespace skiff::vmm {
namespace {

// One piece of memory, in one descriptor.
constexpr uint64_t kBlockMax = uint64_t{1} << 20;

}  // namespace

loop::Result<void> take_driver_words(DriverBenchOptions& options, const DriverBenchWords& words,
                                     uint32_t queues_max) {
  options.path = words.path;
  options.indirect = words.indirect;
  options.direct = words.direct;
  options.verify = words.verify;
  options.overwrite = words.overwrite;
  options.json = words.json;
  options.plot = words.plot;
  SKIFF_RETURN_IF_ERROR(take_pattern(options.pattern, words.rw));
  SKIFF_RETURN_IF_ERROR(take_block_bytes(options.block_bytes, words.bs, kBlockMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.depth, "depth", words.depth, BlkTable::kDepthMax));
  SKIFF_RETURN_IF_ERROR(take_optional(options.queues, "queues", words.queues, queues_max));
  SKIFF_RETURN_IF_ERROR(take_queue_size(options.queue_size, words.queue_size));
  SKIFF_RETURN_IF_ERROR(take_optional(options.rate, "rate", words.rate, kBenchRateMax));
  SKIFF_RETURN_IF_ERROR(take_duration(options.duration_ns, words.duration));
  SKIFF_RETURN_IF_ERROR(take_choice(options.irq, "completion", words.completion, "poll", "irq"));
  SKIFF_RETURN_IF_ERROR(take_size(options.size_bytes, words.size, options.block_bytes));
  SKIFF_RETURN_IF_ERROR(check_queue_depth(options.depth, options.queue_size, options.indirect));
  return check_plot_name(options.plot);
}

}  // namespace skiff::vmm
