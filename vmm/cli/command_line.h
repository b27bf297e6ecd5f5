// SPDX-License-Identifier: GPL-2.0-or-later
// The command line: skiff run, skiff doctor, skiff bench, skiff experiment, skiff version.
//
// Thread: the main thread, before any other exists. Ownership: values.
#pragma once

#include <string>
#include <variant>

#include "vmm/bench/disk_bench_options.h"
#include "vmm/bench/guest/guest_options.h"
#include "vmm/bench/queues_options.h"
#include "vmm/config/machine_config.h"
#include "vmm/experiment/experiment_options.h"
#include "vmm/storage/storage_options.h"

namespace skiff::vmm {

struct RunCommand {
  MachineConfig config;
};
struct DoctorCommand {
  bool quiet = false;
  std::string disk;  // Look at this one instead of at the host.
  bool direct = false;
};
struct BenchDiskCommand {
  DiskBenchOptions options;
};
struct ExperimentCommand {
  ExperimentOptions options;
};
struct StorageCommand {
  StorageOptions options;
};
struct BenchGuestCommand {
  GuestBenchOptions options;
};
struct BenchQueuesCommand {
  QueuesBenchOptions options;
};
struct VersionCommand {};
// Help was shown (0) or the words were wrong and that was said (120).
struct ExitCommand {
  int status = 0;
};
using Command =
    std::variant<ExitCommand, RunCommand, DoctorCommand, BenchDiskCommand, BenchGuestCommand,
                 BenchQueuesCommand, ExperimentCommand, StorageCommand, VersionCommand>;

// Prints help and errors itself, errors on stderr.
Command parse_command_line(int argc, const char* const* argv);

}  // namespace skiff::vmm
