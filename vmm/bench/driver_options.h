// SPDX-License-Identifier: GPL-2.0-or-later
// DriverBenchOptions: what benchmarks that drive a virtio-blk device have in common: `skiff bench
// guest` and `skiff bench queues`.
//
// Thread: any; value types and pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

struct DriverBenchOptions {
  std::string path;
  AccessPattern pattern = AccessPattern::kRandRead;
  uint64_t block_bytes = 4096;
  uint32_t depth = 1;
  uint32_t queues = 1;
  uint16_t queue_size = 256;
  uint64_t rate = 0;        // Requests a second of each queue. 0: as fast as they complete.
  int64_t duration_ns = 0;  // Of each contestant, all its rounds together.
  uint32_t rounds = 1;
  uint64_t size_bytes = 0;  // Only the first bytes of the disk. 0: all of it.
  bool irq = false;         // Drivers sleep until an interrupt comes; otherwise they poll.
  bool indirect = false;
  bool direct = false;
  bool verify = false;
  bool overwrite = false;
  bool json = false;
  std::string plot;
};

// As typed. Empty: not given.
struct DriverBenchWords {
  std::string path;
  std::string rw = "randread";
  std::string bs = "4k";
  std::string depth = "1";
  std::string queues;
  std::string queue_size;
  std::string rate;
  std::string duration = "5";
  std::string rounds;
  std::string size;
  std::string completion = "poll";
  std::string engine = "auto";
  bool indirect = false;
  bool direct = false;
  bool verify = false;
  bool overwrite = false;
  bool json = false;
  bool again = false;  // The first contestant once more.
  std::string plot;
};

// All of it but the rounds; without a word for queues they stay as they are. Errors
// (kInvalidArgument) name the option, its value and what is allowed.
loop::Result<void> take_driver_words(DriverBenchOptions& options, const DriverBenchWords& words,
                                     uint32_t queues_max);
}  // namespace skiff::vmm
