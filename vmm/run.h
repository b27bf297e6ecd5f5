// SPDX-License-Identifier: GPL-2.0-or-later
// run_machine(): `skiff run`, from a checked configuration to an exit status.
//
// Thread: the main thread, whose loop it makes and turns. Signals must be blocked already
// (SignalWatch).
#pragma once

#include "vmm/config/machine_config.h"

namespace skiff::vmm {

// One of vmm/cli/exit_status.h, or the guest's own. Messages go to stderr.
int run_machine(const MachineConfig& config);

}  // namespace skiff::vmm
