// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmm/bench/disk_bench_options.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "block/filters/throttled_image.h"
#include "block/io_engine.h"
#include "block/units.h"
#include "loop/result.h"
#include "vmm/config/option_text.h"

namespace skiff::vmm {
namespace {

using block::IoEngineKind;
using loop::Error;
using loop::ErrorKind;
using loop::Result;

constexpr std::array<std::pair<std::string_view, AccessPattern>, 5> kPatterns = {
    {{"read", AccessPattern::kRead},
     {"write", AccessPattern::kWrite},
     {"randread", AccessPattern::kRandRead},
     {"randwrite", AccessPattern::kRandWrite},
     {"randrw", AccessPattern::kRandRw}}};

// One engine needs no turns to be fair; several drift apart with the host's other work.
constexpr uint32_t kRoundsOfSeveral = 5;
constexpr double kDurationMinSeconds = 0.01;
constexpr double kDurationMaxSeconds = 86'400;

Error refusal(std::string_view option, std::string_view value, std::string_view allowed) {
  return Error(ErrorKind::kInvalidArgument,
               fmt::format("--{} {}: allowed: {}", option, value, allowed));
}

template <typename T>
Result<void> take_number(T& target, std::string_view option, std::string_view text, uint64_t max) {
  const auto value = parse_uint(text, 1, max);
  if (!value) return refusal(option, text, fmt::format("1 to {}", max));
  target = static_cast<T>(*value);
  return {};
}

// "4k" as well as "4K": that is how people write block sizes.
std::optional<uint64_t> bench_size(std::string_view text) {
  std::string upper(text);
  constexpr std::string_view kSmall = "kmgt";
  if (!upper.empty() && kSmall.find(upper.back()) != std::string_view::npos)
    upper.back() = static_cast<char>(upper.back() - 'a' + 'A');
  return block::parse_bytes(upper);
}

Result<void> take_engines(std::vector<IoEngineKind>& target, std::string_view text) {
  std::string allowed;
  for (const IoEngineKind kind : block::kAllEngineKinds)
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", block::engine_name(kind));
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view name = text.substr(begin, end - begin);
    const auto kind = block::parse_engine(name);
    if (!kind) return refusal("engine", name, allowed + "; several with commas");
    // Twice the same is allowed: it shows how far two equal measurements lie apart.
    target.push_back(*kind);
    begin = end + 1;
  }
  return {};
}

Result<void> take_duration(int64_t& target, const std::string& text) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  const bool number = error == std::errc() && end == text.data() + text.size();
  if (!number || !(seconds >= kDurationMinSeconds) || seconds > kDurationMaxSeconds)
    return refusal("duration", text, "seconds, 0.01 to 86400");
  target = static_cast<int64_t>(seconds * 1e9);
  return {};
}

// The limits of the disk itself, as iops= and bps= of a machine's disk.
Result<void> take_limits(block::ThrottleLimits& limits, const DiskBenchWords& words) {
  if (!words.iops.empty())
    SKIFF_RETURN_IF_ERROR(take_number(limits.requests.total, "iops", words.iops, kBenchRateMax));
  if (words.bps.empty()) return {};
  const auto rate = bench_size(words.bps);
  if (!rate || *rate < 512) return refusal("bps", words.bps, "bytes a second, like 512k or 100M");
  limits.bytes.total = *rate;
  return {};
}

Result<void> take_sizes(DiskBenchOptions& options, const DiskBenchWords& words) {
  constexpr std::string_view kBlocks = "a multiple of 512, up to 256M, like 4k or 1M";
  constexpr uint64_t kBlockMax = uint64_t{256} << 20;
  const auto block = bench_size(words.bs);
  if (!block || *block == 0 || *block % 512 != 0 || *block > kBlockMax)
    return refusal("bs", words.bs, kBlocks);
  options.block_bytes = *block;
  if (words.size.empty()) return {};
  const auto size = bench_size(words.size);
  if (!size || *size < options.block_bytes)
    return refusal("size", words.size, "at least one block, like 512M or 4G");
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
  // It is opened for writing: a slip must not cost a disk.
  if (!options.plot.empty() && !options.plot.ends_with(".svg"))
    return refusal("plot", options.plot, "a file name that ends in .svg");
  return {};
}

}  // namespace

std::string_view pattern_name(AccessPattern pattern) {
  for (const auto& [name, value] : kPatterns)
    if (value == pattern) return name;
  return "";
}

Result<DiskBenchOptions> parse_disk_bench(const DiskBenchWords& words) {
  DiskBenchOptions options;
  options.path = words.path;
  options.direct = words.direct;
  options.overwrite = words.overwrite;
  options.json = words.json;
  options.plot = words.plot;
  if (options.path.empty())
    return Error(ErrorKind::kInvalidArgument, "bench disk: no FILE to measure");

  const auto* pattern =
      std::ranges::find(kPatterns, words.rw, &std::pair<std::string_view, AccessPattern>::first);
  if (pattern == kPatterns.end())
    return refusal("rw", words.rw, "read, write, randread, randwrite or randrw");
  options.pattern = pattern->second;
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
