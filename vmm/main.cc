// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <variant>

#include "block/file_device.h"
#include "loop/log.h"
#include "vmm/bench/guest/run_guest_bench.h"
#include "vmm/bench/run_disk_bench.h"
#include "vmm/bench/run_queues_bench.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/exit_status.h"
#include "vmm/doctor.h"
#include "vmm/doctor_disk.h"
#include "vmm/experiment/run_experiment.h"
#include "vmm/run.h"
#include "vmm/signal_watch.h"
#include "vmm/storage/run_storage.h"

namespace {

using namespace skiff::vmm;

int execute(const ExitCommand& command) { return command.status; }

int execute(const RunCommand& command) {
  SignalWatch::block_signals();
  skiff::loop::set_log_level(command.config.log_level);
  return run_machine(command.config);
}

int examine(const std::string& disk, skiff::block::DirectIo direct) {
  const auto finding = examine_disk(disk, direct);
  if (!finding) {
    std::fprintf(stderr, "skiff: %s\n", finding.error().message().c_str());
    return kExitUsage;
  }
  std::fputs(disk_finding_text(*finding).c_str(), stdout);
  return 0;
}

int execute(const DoctorCommand& command) {
  using skiff::block::DirectIo;
  if (!command.disk.empty())
    return examine(command.disk, command.direct ? DirectIo::kOn : DirectIo::kOff);
  const HostFinding finding = examine_host();
  if (!command.quiet) std::fputs(doctor_text(finding).c_str(), stdout);
  return doctor_exit_status(finding);
}

int execute(const BenchDiskCommand& command) {
  SignalWatch::block_signals();
  return run_disk_bench(command.options);
}

int execute(const BenchGuestCommand& command) { return run_guest_bench(command.options); }

int execute(const BenchQueuesCommand& command) { return run_queues_bench(command.options); }

int execute(const ExperimentCommand& command) {
  // Only what watches signals may block them.
  if (command.options.task == ExperimentOptions::Task::kRun) SignalWatch::block_signals();
  return run_experiment(command.options, SKIFF_VERSION);
}

int execute(const StorageCommand& command) {
  SignalWatch::block_signals();
  skiff::loop::set_log_level(command.options.log_level);
  return run_storage(command.options);
}

int execute(const VersionCommand&) {
  std::puts("skiff " SKIFF_VERSION);
  return 0;
}

// A descriptor of ours must never get the number of a standard stream that the caller has closed.
void keep_standard_streams_open() {
  int fd = 0;
  while (fd >= 0 && fd <= 2) fd = ::open("/dev/null", O_RDWR);
  if (fd > 2) ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  keep_standard_streams_open();
  return std::visit([](const auto& command) { return execute(command); },
                    parse_command_line(argc, argv));
}
