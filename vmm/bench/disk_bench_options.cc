// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/disk_bench_options.h"

#include <spdlog/fmt/fmt.h>

#include <cstdint>

#include "block/filters/throttled_image.h"
#include "loop/result.h"
#include "vmm/bench/bench_words.h"

namespace skiff::vmm {
namespace {

using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr uint64_t kBlockMax = uint64_t{256} << 20;

// The limits of the disk itself, as iops= and bps= of a machine's disk.
Result<void> take_limits(block::ThrottleLimits& limits, const DiskBenchWords& words) {
  if (!words.iops.empty())
    SKIFF_RETURN_IF_ERROR(take_number(limits.requests.total, "iops", words.iops, kBenchRateMax));
  if (words.bps.empty()) return {};
  const auto rate = bench_size(words.bps);
  if (!rate || *rate < 512)
    return refused_word("bps", words.bps, "bytes a second, like 512k or 100M");
  limits.bytes.total = *rate;
  return {};
}

Result<void> check_together(const DiskBenchOptions& options) {
  SKIFF_RETURN_IF_ERROR(check_buffers(options.block_bytes * options.depth * options.jobs, "jobs"));
  if (options.rate != 0 && options.rate < options.jobs) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("--rate {}: less than one I/O a second for each of {} jobs",
                             options.rate, options.jobs));
  }
  return check_plot_name(options.plot);
}

}  // namespace

Result<DiskBenchOptions> parse_disk_bench(const DiskBenchWords& words) {
  DiskBenchOptions options;
  options.path = words.path;
  options.direct = words.direct;
  options.overwrite = words.overwrite;
  options.json = words.json;
  options.plot = words.plot;
  if (options.path.empty())
    return Error(ErrorKind::kInvalidArgument, "bench disk: no FILE to measure");

  SKIFF_RETURN_IF_ERROR(take_pattern(options.pattern, words.rw));
  SKIFF_RETURN_IF_ERROR(take_block_bytes(options.block_bytes, words.bs, kBlockMax));
  SKIFF_RETURN_IF_ERROR(take_size(options.size_bytes, words.size, options.block_bytes));
  SKIFF_RETURN_IF_ERROR(take_number(options.depth, "depth", words.depth, kBenchDepthMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.jobs, "jobs", words.jobs, kBenchJobsMax));
  SKIFF_RETURN_IF_ERROR(take_engines(options.engines, words.engines));
  SKIFF_RETURN_IF_ERROR(take_duration(options.duration_ns, words.duration));
  SKIFF_RETURN_IF_ERROR(take_rounds(options.rounds, words.rounds, options.engines.size()));
  SKIFF_RETURN_IF_ERROR(take_optional(options.rate, "rate", words.rate, kBenchRateMax));
  SKIFF_RETURN_IF_ERROR(take_optional(options.share_rate, "share", words.share, kBenchRateMax));
  SKIFF_RETURN_IF_ERROR(take_limits(options.throttle, words));
  SKIFF_RETURN_IF_ERROR(check_together(options));
  return options;
}

}  // namespace skiff::vmm
