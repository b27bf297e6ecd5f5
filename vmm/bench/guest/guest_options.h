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
#include "vmm/bench/driver_options.h"

namespace skiff::vmm {

enum class GuestVmm : uint8_t { kSkiff, kQemu };

// One arrangement that is measured: a virtual machine monitor and how it serves the disk.
struct GuestContestant {
  GuestVmm vmm = GuestVmm::kSkiff;
  std::string submit;    // Skiff's --disk submit=; empty: not said.
  std::string engine;    // Skiff's --disk engine=.
  std::string aio;       // QEMU's aio=, or null-co and null-aio for a disk without a medium.
  uint64_t poll_us = 0;  // QEMU's poll-max-ns of its IOThread.
  bool again = false;    // The first one once more, to see what chance does.

  std::string name() const;
};

struct GuestBenchOptions : DriverBenchOptions {
  uint32_t cpus = 1;
  uint64_t timer = 0;                 // A second: the guest tells how late they come. 0: none.
  std::optional<int64_t> warm_up_ns;  // Of each run. Nothing: a fifth of its time, 200 ms at most.
  bool mmio = false;
  std::vector<GuestContestant> contestants;
  std::optional<block::IoEngineKind> floor;  // The host's own way to the file, measured beside.
  std::string qemu = "qemu-system-x86_64";
  std::vector<std::string> qemu_args;   // Added to QEMU's command line.
  std::vector<std::string> skiff_args;  // Added to that of `skiff run`.
  std::string disk_keys;                // Added to Skiff's --disk.
};

// As typed. Empty: not given.
struct GuestBenchWords : DriverBenchWords {
  std::string vmm = "skiff";
  std::string cpus = "1";
  std::string timer;
  std::string warm_up;
  std::string bus = "pci";
  std::string submit;
  std::string floor;
  std::string qemu;
  std::string qemu_aio;
  std::string qemu_poll_us = "32";
  std::string disk_keys;
  std::vector<std::string> qemu_args;
  std::vector<std::string> skiff_args;
};

// What the payload guest's static tables allow.
inline constexpr uint32_t kGuestCpusMax = 64;

// Errors (kInvalidArgument) name the option, its value and what is allowed.
loop::Result<GuestBenchOptions> parse_guest_bench(const GuestBenchWords& words);

}  // namespace skiff::vmm
