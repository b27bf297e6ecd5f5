// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdio>
#include <variant>

#include "loop/log.h"
#include "vmm/cli/command_line.h"
#include "vmm/doctor.h"
#include "vmm/run.h"
#include "vmm/signal_watch.h"

namespace {

using namespace skiff::vmm;

int execute(const ExitCommand& command) { return command.status; }

int execute(const RunCommand& command) {
  SignalWatch::block_signals();
  skiff::loop::set_log_level(command.config.log_level);
  return run_machine(command.config);
}

int execute(const DoctorCommand& command) {
  const HostFinding finding = examine_host();
  if (!command.quiet) std::fputs(doctor_text(finding).c_str(), stdout);
  return doctor_exit_status(finding);
}

int execute(const VersionCommand&) {
  std::puts("skiff " SKIFF_VERSION);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return std::visit([](const auto& command) { return execute(command); },
                    parse_command_line(argc, argv));
}
