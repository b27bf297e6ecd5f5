// SPDX-License-Identifier: GPL-2.0-or-later
// QueuesBenchOptions: what `skiff bench queues` is asked to do.
//
// Thread: any; value types and a pure function.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block/io_engine.h"
#include "devices/virtio/blk/queue_home.h"
#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

// One device under load: in this process, or behind a vhost-user socket.
struct QueuesContestant {
  std::string socket;  // Empty: in this process, by the two below.
  devices::SubmitMode submit = devices::SubmitMode::kIoThread;
  block::IoEngineKind engine = block::IoEngineKind::kAuto;

  std::string name() const;
};

struct QueuesBenchOptions {
  std::string path;
  AccessPattern pattern = AccessPattern::kRandRead;
  uint64_t block_bytes = 4096;
  uint32_t depth = 1;
  uint32_t queues = 1;
  uint16_t queue_size = 256;
  uint32_t threads = 1;     // That drive the queues, as a guest's vCPUs would.
  uint32_t iothreads = 1;   // That serve them.
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
  std::vector<QueuesContestant> contestants;
};

// As typed. Empty: not given.
struct QueuesBenchWords {
  std::string path;
  std::string rw = "randread";
  std::string bs = "4k";
  std::string depth = "1";
  std::string queues = "1";
  std::string queue_size;
  std::string threads = "1";
  std::string iothreads = "1";
  std::string rate;
  std::string duration = "5";
  std::string rounds;
  std::string size;
  std::string completion = "poll";
  std::string submit = "iothread";
  std::string engine = "auto";
  std::vector<std::string> sockets;
  bool indirect = false;
  bool direct = false;
  bool verify = false;
  bool overwrite = false;
  bool json = false;
  std::string plot;
};

inline constexpr uint32_t kBenchQueuesMax = 64;

// Errors (kInvalidArgument) name the option, its value and what is allowed.
loop::Result<QueuesBenchOptions> parse_queues_bench(const QueuesBenchWords& words);

}  // namespace skiff::vmm
