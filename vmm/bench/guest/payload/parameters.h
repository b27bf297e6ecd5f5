// SPDX-License-Identifier: GPL-2.0-or-later
// Parameters: what the payload guest is asked to do, by words on its kernel command line:
//
//   bench.cpus=4 bench.queues=4 bench.bs=4096 bench.depth=1 bench.tsc_khz=2400000 ...
//
// Words that do not begin with "bench." are somebody else's. Freestanding. Thread: any; a value.
#pragma once

#include <cstdint>

namespace skiff::vmm::payload {

struct Parameters {
  uint64_t cpus = 1;
  uint64_t queues = 1;
  uint64_t queue_size = 256;
  uint64_t bs = 4096;
  uint64_t depth = 1;
  uint64_t random = 1;
  uint64_t write_percent = 0;
  uint64_t verify = 0;
  uint64_t rate = 0;  // Of each queue.
  uint64_t duration_us = 1'000'000;
  uint64_t warmup_us = 0;
  uint64_t mmio = 0;  // 1: virtio-mmio, 0: PCI.
  uint64_t irq = 0;   // 1: completions by interrupt, 0: by polling.
  uint64_t event_idx = 1;
  uint64_t indirect = 0;
  uint64_t blocks = 0;  // 0: the whole disk.
  uint64_t seed = 1;
  uint64_t tsc_khz = 0;  // No default: nobody but the host knows.
  uint64_t ram = 0;      // Bytes from 0 on.

  // Where the virtual machine has what; the same in Skiff and in QEMU's microvm.
  uint64_t ecam = 0xe000'0000;
  uint64_t bars = 0xd000'0000;
  uint64_t mmio_base = 0xfeb0'0000;
};

// False when a word that begins with "bench." is none of ours or has no number; `bad` is that word.
bool parse_parameters(const char* command_line, Parameters& parameters, const char*& bad);

}  // namespace skiff::vmm::payload
