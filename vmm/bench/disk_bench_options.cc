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

// One engine needs no turns to be fair; several drift apart with the host's other work.
constexpr uint32_t kRoundsOfSeveral = 5;

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

Result<void> take_sizes(DiskBenchOptions& options, const DiskBenchWords& words) {
  constexpr uint64_t kBlockMax = uint64_t{256} << 20;
  SKIFF_RETURN_IF_ERROR(take_block_bytes(options.block_bytes, words.bs, kBlockMax));
  if (words.size.empty()) return {};
  const auto size = bench_size(words.size);
  if (!size || *size < options.block_bytes)
    return refused_word("size", words.size, "at least one block, like 512M or 4G");
  options.size_bytes = *size;
  return {};
}

Result<void> check_together(const DiskBenchOptions& options) {
  const uint64_t buffers = options.block_bytes * options.depth * options.jobs;
  if (buffers > kBenchBuffersMax) {
    return Error(ErrorKind::kInvalidArgument,
                 fmt::format("--bs, --depth and --jobs ask for {} MiB of buffers; {} MiB are "
                             "allowed: lower one of the three",
                             buffers >> 20, kBenchBuffersMax >> 20));
  }
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
  SKIFF_RETURN_IF_ERROR(take_sizes(options, words));
  SKIFF_RETURN_IF_ERROR(take_number(options.depth, "depth", words.depth, kBenchDepthMax));
  SKIFF_RETURN_IF_ERROR(take_number(options.jobs, "jobs", words.jobs, kBenchJobsMax));
  SKIFF_RETURN_IF_ERROR(take_engines(options.engines, words.engines));
  SKIFF_RETURN_IF_ERROR(take_duration(options.duration_ns, words.duration));
  options.rounds = options.engines.size() > 1 ? kRoundsOfSeveral : 1;
  if (!words.rounds.empty())
    SKIFF_RETURN_IF_ERROR(take_number(options.rounds, "rounds", words.rounds, kBenchRoundsMax));
  if (!words.rate.empty())
    SKIFF_RETURN_IF_ERROR(take_number(options.rate, "rate", words.rate, kBenchRateMax));
  if (!words.share.empty())
    SKIFF_RETURN_IF_ERROR(take_number(options.share_rate, "share", words.share, kBenchRateMax));
  SKIFF_RETURN_IF_ERROR(take_limits(options.throttle, words));
  SKIFF_RETURN_IF_ERROR(check_together(options));
  return options;
}

}  // namespace skiff::vmm
