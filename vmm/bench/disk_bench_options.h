// SPDX-License-Identifier: GPL-2.0-or-later
// DiskBenchOptions: what `skiff bench disk` is asked to do.
//
// The words come from the command line as they were typed; parse_disk_bench() gives them their
// meaning. Thread: any; value types and a pure function.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "block/filters/throttled_image.h"
#include "block/io_engine.h"
#include "loop/result.h"

namespace skiff::vmm {

enum class AccessPattern : uint8_t { kRead, kWrite, kRandRead, kRandWrite, kRandRw };

inline bool is_random(AccessPattern pattern) { return pattern >= AccessPattern::kRandRead; }
inline bool writes(AccessPattern pattern) {
  return pattern != AccessPattern::kRead && pattern != AccessPattern::kRandRead;
}
std::string_view pattern_name(AccessPattern pattern);

struct DiskBenchOptions {
  std::string path;
  AccessPattern pattern = AccessPattern::kRandRead;
  uint64_t block_bytes = 4096;
  uint32_t depth = 1;
  uint32_t jobs = 1;
  std::vector<block::IoEngineKind> engines;
  int64_t duration_ns = 0;  // Of each engine, all its rounds together.
  uint32_t rounds = 1;      // The engines take turns this often.
  uint64_t rate = 0;        // I/Os a second, all jobs together. 0: as fast as they complete.
  uint64_t share_rate = 0;  // Of a second stream on each job's thread. 0: none.
  uint64_t size_bytes = 0;  // Only the first bytes of the disk. 0: all of it.
  block::ThrottleLimits throttle;
  bool direct = false;
  bool overwrite = false;
  bool json = false;
  std::string plot;  // Empty: none.
};

// As typed. Empty: not given.
struct DiskBenchWords {
  std::string path;
  std::string rw = "randread";
  std::string bs = "4k";
  std::string depth = "1";
  std::string jobs = "1";
  std::string engines = "auto";
  std::string duration = "10";
  std::string rounds;
  std::string rate;
  std::string share;
  std::string size;
  std::string iops;
  std::string bps;
  bool direct = false;
  bool overwrite = false;
  bool json = false;
  std::string plot;
};

inline constexpr uint32_t kBenchDepthMax = 4096;
inline constexpr uint32_t kBenchJobsMax = 64;
inline constexpr uint32_t kBenchRoundsMax = 1000;
inline constexpr uint64_t kBenchRateMax = 100'000'000;
// Of all buffers of all jobs.
inline constexpr uint64_t kBenchBuffersMax = uint64_t{1} << 30;

// Errors (kInvalidArgument) name the option, its value and what is allowed.
loop::Result<DiskBenchOptions> parse_disk_bench(const DiskBenchWords& words);

}  // namespace skiff::vmm
