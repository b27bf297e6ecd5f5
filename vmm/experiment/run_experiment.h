// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff experiment` from parsed options to exit status.
//
// Thread: the main thread; for Task::kRun with the signals of SignalWatch blocked. Ownership: none.
#pragma once

#include <string>

#include "vmm/experiment/experiment_options.h"

namespace skiff::vmm {

// Progress and errors on stderr; results in files, or for a list, a comparison and a simulation on
// stdout. 0; kExitUsage when it could not start; 1 when a cell has failed; kExitStopped after a
// signal, with a report of what was measured. A second signal ends it at once.
int run_experiment(const ExperimentOptions& options, const std::string& version);

}  // namespace skiff::vmm
