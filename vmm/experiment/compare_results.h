// SPDX-License-Identifier: GPL-2.0-or-later
// Two results of the same experiment beside each other.
//
// Thread: any; pure functions.
#pragma once

#include <string>

#include "vmm/experiment/experiment_result.h"

namespace skiff::vmm {

// For each cell that both have: `after` in proportion to `before`, with its interval, and whether
// that is more than the larger spread of the two. A table, then what only one of them has.
std::string compare_text(const ExperimentResult& before, const ExperimentResult& after);

}  // namespace skiff::vmm
