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
#include "vmm/bench/driver_options.h"

namespace skiff::vmm {

// One device under load: in this process, or behind a vhost-user socket.
struct QueuesContestant {
  std::string socket;  // Empty: in this process, by the two below.
  devices::SubmitMode submit = devices::SubmitMode::kIoThread;
  block::IoEngineKind engine = block::IoEngineKind::kAuto;
  bool again = false;  // The first one once more, to see what chance does.

  std::string name() const;
};

struct QueuesBenchOptions : DriverBenchOptions {
  uint32_t threads = 1;    // That drive the queues, as a guest's vCPUs would.
  uint32_t iothreads = 1;  // That serve them.
  std::vector<QueuesContestant> contestants;
};

// As typed. Empty: not given.
struct QueuesBenchWords : DriverBenchWords {
  std::string threads = "1";
  std::string iothreads = "1";
  std::string submit = "iothread";
  std::vector<std::string> sockets;
};

inline constexpr uint32_t kBenchQueuesMax = 64;

// Errors (kInvalidArgument) name the option, its value and what is allowed.
loop::Result<QueuesBenchOptions> parse_queues_bench(const QueuesBenchWords& words);

}  // namespace skiff::vmm
