// SPDX-License-Identifier: GPL-2.0-or-later
// `skiff experiment --simulate`: this host's costs, how well the model fits it, and what the model
// says of the machine that was asked for.
//
// Thread: the main thread. Ownership: none.
#pragma once

#include "vmm/experiment/simulator/simulation_options.h"

namespace skiff::vmm {

// The exit status. Prints to stdout.
int run_simulation(const SimulationOptions& options);

}  // namespace skiff::vmm
