// SPDX-License-Identifier: GPL-2.0-or-later
// GuestBenchOptions: what `skiff bench guest` is asked to do.
//
// Thread: any; value types and a pure function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "block/io_engine.h"
#include "loop/result.h"
#include "vmm/bench/disk_bench_options.h"

namespace skiff::vmm {

enum class GuestVmm : uint8_t { kSkiff, kQemu };

// One arrangement that is measured: a virtual machine monitor and how it serves the disk.
struct GuestContestant {
  GuestVmm vmm = GuestVmm::kSkiff;
  std::string submit;    // Skiff's --disk submit=; empty: not said.
  std::string engine;    // Skiff's --disk engine=.
  std::string aio;       // QEMU's aio=, or null-co and null-aio for a disk without a medium.
  uint64_t poll_us = 0;  // QEMU's poll-max-ns of its IOThread.

  std::string name() const;
};

struct GuestBenchOptions {
  std::string path;
  AccessPattern pattern = AccessPattern::kRandRead;
  uint64_t block_bytes = 4096;
  uint32_t depth = 1;
  uint32_t cpus = 1;
  uint32_t queues = 1;
  uint16_t queue_size = 256;
  uint64_t rate = 0;        // Requests a second of each queue. 0: as fast as they complete.
  int64_t duration_ns = 0;  // Of each contestant, all its rounds together.
  uint32_t rounds = 1;
  uint64_t size_bytes = 0;  // Only the first bytes of the disk. 0: all of it.
  bool irq = false;         // Completions by interrupt; otherwise the guest polls.
  bool mmio = false;
  bool indirect = false;
  bool direct = false;
  bool verify = false;
  bool overwrite = false;
  bool json = false;
  std::string plot;
  std::vector<GuestContestant> contestants;
  std::optional<block::IoEngineKind> floor;  // The host's own way to the file, measured beside.
  std::string qemu = "qemu-system-x86_64";
  std::vector<std::string> qemu_args;   // Added to QEMU's command line.
  std::vector<std::string> skiff_args;  // Added to that of `skiff run`.
  std::string disk_keys;                // Added to Skiff's --disk.
};

// As typed. Empty: not given.
struct GuestBenchWords {
  std::string path;
  std::string vmm = "skiff";
  std::string rw = "randread";
  std::string bs = "4k";
  std::string depth = "1";
  std::string cpus = "1";
  std::string queues;
  std::string queue_size;
  std::string rate;
  std::string duration = "5";
  std::string rounds;
  std::string size;
  std::string completion = "poll";
  std::string bus = "pci";
  std::string submit;
  std::string engine = "auto";
  std::string floor;
  std::string qemu;
  std::string qemu_aio;
  std::string qemu_poll_us = "32";
  std::string disk_keys;
  std::vector<std::string> qemu_args;
  std::vector<std::string> skiff_args;
  bool indirect = false;
  bool direct = false;
  bool verify = false;
  bool overwrite = false;
  bool json = false;
  std::string plot;
};

// What the payload guest's static tables allow.
inline constexpr uint32_t kGuestCpusMax = 64;

// Errors (kInvalidArgument) name the option, its value and what is allowed.
loop::Result<GuestBenchOptions> parse_guest_bench(const GuestBenchWords& words);

}  // namespace skiff::vmm
